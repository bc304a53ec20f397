"""Each fault shows when its fix is switched off and is gone with it."""

import io
import json
import os
import pickle
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fairseq_compat

pytest.importorskip("fairseq")

HERE = Path(__file__).parent
SWITCH = "DIFFDECODE_NO_FAIRSEQ_COMPAT"
NUMPY = tuple(map(int, np.__version__.split(".")[:2]))
FAULTS = {
    "untouched_logging": "importing fairseq set up logging: level 20",
    "checkpoint_globals": "Unsupported global: GLOBAL argparse.Namespace",
    "resume_broadcast": "Unsupported global: GLOBAL omegaconf.dictconfig.DictConfig",
    "numpy_names_sample_break_mode_eos": "compat",  # of numpy; worded differently from version to version
    "numpy_names_num_batch_buckets": "argument 'interpolation'" if NUMPY >= (2, 4) else "compat",
    "numpy_names_span_masking": "module 'numpy' has no attribute 'int'",
    "numpy_names_crf": "module 'numpy' has no attribute 'float'",
    "encoder_fast_path": "RuntimeError: Mask Type should be defined",
    "cpu_ddp": "DistributedDataParallel device_ids and output_device arguments only work with",
    "named_subsets": "'valid1.de-en.de'",
    "gloo_threads": "threads of the destroyed process group",
}


def python(*args, off=""):
    """Run this interpreter outside the checkout with the named fixes switched off."""
    environment = os.environ | {SWITCH: off, "PYTHONPATH": str(HERE.parents[1])}
    return subprocess.run([sys.executable, *args], env=environment, cwd="/", capture_output=True, text=True)


def met_faults(off):
    run = python(HERE / "faults.py", off=off)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def without_fixes():
    everything = {*fairseq_compat.BEFORE_IMPORT, *fairseq_compat.AFTER_IMPORT} - {"hashable_configs"}
    return met_faults(off=",".join(everything))


@pytest.fixture(scope="module")
def with_fixes():
    return met_faults(off="")


@pytest.mark.parametrize("probe", FAULTS)
def test_fault_is_there_without_its_fix(probe, without_fixes):
    if without_fixes["fairseq"] != "0.12.2" or NUMPY < (2, 0):
        pytest.skip("this list of faults is that of fairseq 0.12.2 on NumPy >= 2.0")
    assert FAULTS[probe] in (without_fixes[probe] or "no fault")


@pytest.mark.parametrize("probe", FAULTS)
def test_fault_is_gone_with_its_fix(probe, with_fixes):
    assert with_fixes[probe] is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the fault came with Python 3.11")
@pytest.mark.parametrize("off", ["1", "hashable_configs"])
def test_import_fails_without_hashable_configs(off):
    run = python("-c", "import fairseq_compat.hook as h; h.install(); import fairseq", off=off)
    assert "mutable default <class 'fairseq.dataclass.configs.CommonConfig'>" in run.stderr


def test_dataclass_is_the_standard_one_again_after_the_import():
    code = "import dataclasses as d; before = d.dataclass; import fairseq; assert d.dataclass is before"
    assert python("-c", f"import fairseq_compat.hook as h; h.install(); {code}").returncode == 0


def test_switch():
    code = "import fairseq_compat as c; print([n for n in c.BEFORE_IMPORT + c.AFTER_IMPORT if c.enabled(n)])"
    every = [*fairseq_compat.BEFORE_IMPORT, *fairseq_compat.AFTER_IMPORT]
    for off, on in [
        ("", every),
        ("0", every),
        ("1", []),
        ("cpu_ddp, hashable_configs", [n for n in every if n not in ("cpu_ddp", "hashable_configs")]),
    ]:
        assert python("-c", code, off=off).stdout.strip() == str(on)


def test_switch_refuses_a_name_that_is_none():
    run = python("-c", "import fairseq_compat; fairseq_compat.apply()", off="cpu_ddp,cpu-ddp")
    assert "DIFFDECODE_NO_FAIRSEQ_COMPAT" in run.stderr and "'cpu-ddp'" in run.stderr


def test_start_of_the_interpreter_imports_nothing_heavy():
    code = (
        "import os, sys; before = set(sys.modules);"
        "import fairseq_compat.hook as h; h.install(); h.install();"
        "assert sys.meta_path.count(h.FairseqFinder) == 1;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    run = python("-I", "-S", "-c", f"import sys; sys.path.append({str(HERE.parents[1])!r}); {code}")
    assert run.stdout.split() == ["fairseq_compat"], run.stderr


def test_apply_a_second_time_changes_nothing():
    first = fairseq_compat.apply()
    from fairseq.distributed import utils
    from fairseq.models import distributed_fairseq_model as ddp
    from fairseq.modules.transformer_layer import TransformerEncoderLayerBase as Layer

    before = utils.torch, ddp.DistributedDataParallel, Layer.__init__
    assert fairseq_compat.apply() == first
    assert before == (utils.torch, ddp.DistributedDataParallel, Layer.__init__)


class Smuggled:
    """What a hostile checkpoint would have: on loading, pickle would call the function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "call", [(os.system, "echo > smuggled"), (open, "smuggled", "w")], ids=["os", "open"]
)
@pytest.mark.parametrize("where", ["args", "extra_state", "model"])
def test_checkpoint_with_another_global_is_refused(where, call, tmp_path, monkeypatch):
    from fairseq import checkpoint_utils

    monkeypatch.chdir(tmp_path)
    state = {"args": Namespace(arch="lstm"), "extra_state": {"epoch": 1}, "model": {}}
    state[where] = {"x": Smuggled(*call)}
    torch.save(state, "checkpoint.pt")
    with pytest.raises(
        pickle.UnpicklingError, match=r"(?i)unsupported (global: )?GLOBAL (posix.system|_?io.open)"
    ):
        checkpoint_utils.load_checkpoint_to_cpu("checkpoint.pt")
    assert not Path("smuggled").exists()


def test_checkpoint_written_under_numpy_1_is_read(monkeypatch):
    from fairseq_compat.checkpoint_globals import rebuild_array, rebuild_scalar

    fairseq_compat.apply()
    for function in (rebuild_array, rebuild_scalar):  # what NumPy 1 called their module
        monkeypatch.setattr(function, "__module__", "numpy.core.multiarray")
    file = io.BytesIO()
    torch.save({"bleu": np.float64(0.5), "counts": np.arange(3)}, file)
    assert b"numpy.core.multiarray" in file.getvalue()
    file.seek(0)
    read = torch.load(file)
    assert read["bleu"] == 0.5 and read["counts"].tolist() == [0, 1, 2]


# -- Faults that official 0.12.2 does not have: a stand-in for the function of the main branch is tested --


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    max_tokens=st.integers(9, 40),
    multiple=st.sampled_from([1, 2, 8]),
    vector=st.booleans(),
)
def test_complete_batches_are_those_of_the_sound_function(lengths, max_tokens, multiple, vector):
    from faulty_batches import batch_by_size, sound

    from fairseq_compat.complete_batches import with_last_batch

    lengths = np.array(lengths, dtype=np.int64)
    sizes = (lengths.__getitem__, lengths if vector else None)
    limits = {"max_tokens": max_tokens, "required_batch_size_multiple": multiple}
    order = np.argsort(lengths, kind="stable")
    expected = sound(order, *sizes, **limits)
    repaired = with_last_batch(batch_by_size)(order, *sizes, **limits)
    assert [list(batch) for batch in repaired] == [list(batch) for batch in expected]


def test_stand_in_loses_the_last_batch_and_the_fix_finds_it(monkeypatch):
    from fairseq.data import data_utils
    from faulty_batches import batch_by_size

    from fairseq_compat import complete_batches

    lengths = np.full(60, 5)
    limits = {"max_sentences": 16, "required_batch_size_multiple": 8}
    assert not complete_batches.fix(), "0.12.2 does not have this fault"
    monkeypatch.setattr(data_utils, "batch_by_size", batch_by_size)
    assert sum(map(len, data_utils.batch_by_size(range(60), lengths.__getitem__, **limits))) == 56
    assert complete_batches.fix()
    assert sum(map(len, data_utils.batch_by_size(range(60), lengths.__getitem__, **limits))) == 60


def test_torchrun_is_heeded_also_by_the_main_branch(monkeypatch):
    from fairseq.dataclass.configs import DistributedTrainingConfig
    from fairseq.distributed import utils

    from fairseq_compat import torchrun_init

    def infer_init_method(cfg, force_distributed=False):
        """Stand-in for the function of the main branch."""
        if cfg.distributed_world_size == 1:
            return
        raise AssertionError("not needed here")

    def _infer_torch_distributed_launch_init(cfg):
        cfg.device_id = cfg.distributed_rank % torch.cuda.device_count()

    for name, value in {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
        "WORLD_SIZE": "2",
        "RANK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert not torchrun_init.fix(), "0.12.2 does not have this fault"
    for function in (infer_init_method, _infer_torch_distributed_launch_init):
        monkeypatch.setattr(utils, function.__name__, function)
    config = DistributedTrainingConfig(distributed_world_size=1, tpu=False)
    utils.infer_init_method(config)
    assert config.distributed_init_method is None
    assert torchrun_init.fix()
    utils.infer_init_method(config)
    assert (config.distributed_init_method, config.distributed_world_size) == ("env://", 2)
    assert (config.distributed_rank, config.distributed_no_spawn) == (1, True)
    monkeypatch.delenv("RANK")
    config = DistributedTrainingConfig(distributed_world_size=1, tpu=False)
    utils.infer_init_method(config)
    assert config.distributed_init_method is None
