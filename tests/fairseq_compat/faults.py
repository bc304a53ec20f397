"""One probe for each fault that fairseq_compat repairs; ``python faults.py`` prints what each met, as JSON.

Run in a process of its own, with ``DIFFDECODE_NO_FAIRSEQ_COMPAT`` set or not: a fault, like its fix, is there
for the whole process. A probe raises what a user would see.
"""

import io
import json
import logging
import os
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path

import fairseq_compat.hook

fairseq_compat.hook.install()
import fairseq  # noqa: E402

fairseq_compat.apply()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from omegaconf import DictConfig  # noqa: E402


def untouched_logging():
    root = logging.getLogger()
    if root.level != logging.WARNING or root.handlers:
        raise AssertionError(f"importing fairseq set up logging: level {root.level}, {root.handlers}")


def through_a_file(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file)


def checkpoint_globals():
    content = {"args": Namespace(lr=[0.1]), "extra_state": {"loss": np.float64(0.5), "count": np.arange(3)}}
    content["extra_state"]["small"] = np.float32(2)
    read = through_a_file(content)
    assert read["args"] == content["args"]
    assert read["extra_state"]["loss"] == 0.5 and read["extra_state"]["count"].tolist() == [0, 1, 2]


def resume_broadcast():
    """Rank 1 receives what rank 0 has sent; the two ranks take turns in this one process."""
    from fairseq.distributed import utils

    sent = []
    state = {"cfg": DictConfig({"lr": 0.1})}
    utils.get_rank, utils.broadcast = lambda group: 0, lambda tensor, **_: sent.append(tensor.clone())
    utils._broadcast_object_slow(state, 0, None, torch.device("cpu"))
    utils.get_rank, utils.broadcast = lambda group: 1, lambda tensor, **_: tensor.copy_(sent.pop(0))
    assert utils._broadcast_object_slow(None, 0, None, torch.device("cpu")) == state


def numpy_names_sample_break_mode_eos():
    from fairseq.data import TokenBlockDataset

    sentences = [torch.tensor([4, 5, 2]), torch.tensor([6, 2])]
    blocks = TokenBlockDataset(sentences, [3, 2], None, pad=1, eos=2, break_mode="eos")
    assert [block.tolist() for block in blocks] == [[4, 5, 2], [6, 2]]


def numpy_names_num_batch_buckets():
    from fairseq.data import Dictionary, LanguagePairDataset

    sentences = [torch.tensor([4, 2]), torch.tensor([4, 4, 4, 2])]
    data = LanguagePairDataset(sentences, [2, 4], Dictionary(), num_buckets=1)
    assert data.src_sizes.tolist() == [4, 4]
    assert data.get_batch_shapes() == [(None, 4)]


def numpy_names_span_masking():
    from fairseq.data.data_utils import compute_mask_indices

    np.random.seed(0)
    mask = compute_mask_indices((2, 40), None, 0.5, 4, no_overlap=True, min_masks=2)
    assert mask.shape == (2, 40) and mask.any()


def numpy_names_crf():
    from fairseq.modules import DynamicCRF

    crf = DynamicCRF(6, low_rank=2, beam_size=3)
    tags = torch.tensor([[1, 2, 3]])
    assert crf(torch.zeros(1, 3, 6), tags, torch.ones(1, 3, dtype=torch.bool)).isfinite().all()


def tiny_encoder_layer():
    from fairseq.models.transformer import TransformerConfig
    from fairseq.modules.transformer_layer import TransformerEncoderLayerBase

    config = TransformerConfig()
    config.encoder.embed_dim, config.encoder.ffn_embed_dim, config.encoder.attention_heads = 8, 16, 2
    return TransformerEncoderLayerBase(config)


def encoder_fast_path():
    """A loaded layer in eval mode; state written with and without the copies of the weights."""
    layer, trained = tiny_encoder_layer().eval(), tiny_encoder_layer().eval()
    state = trained.state_dict()
    state["in_proj_weight"] = torch.zeros(24, 8)
    layer.load_state_dict(state)
    x, padding = torch.randn(5, 2, 8), torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    with torch.no_grad():
        assert torch.equal(layer(x, padding), trained(x, padding))
    assert not [name for name, _ in layer.named_parameters() if name.startswith("in_proj")]


@contextmanager
def process_group():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield torch.distributed.group.WORLD
    finally:
        torch.distributed.destroy_process_group()


def cpu_ddp():
    from fairseq.models.distributed_fairseq_model import DistributedFairseqModel

    options = Namespace(tpu=False, ddp_backend="pytorch_ddp", device_id=0, broadcast_buffers=False)
    vars(options).update(bucket_cap_mb=25, find_unused_parameters=False, gradient_as_bucket_view=False)
    vars(options).update(ddp_comm_hook="none", heartbeat_timeout=-1)
    with process_group() as group:
        model = DistributedFairseqModel(options, torch.nn.Linear(2, 2), group, torch.device("cpu"))
        model(torch.ones(1, 2)).sum().backward()


def named_subsets():
    from tempfile import TemporaryDirectory

    from fairseq.data import data_utils

    options = {
        "ignore_unused_valid_subsets": False,
        "combine_valid_subsets": None,
        "disable_validation": False,
    }
    with TemporaryDirectory() as folder:
        for split in ("train", "valid", "valid1"):
            for side in ("de", "en"):
                Path(folder, f"{split}.de-en.{side}.idx").touch()
        named = Namespace(
            task=Namespace(data=folder), dataset=Namespace(valid_subset="valid,valid1", **options)
        )
        data_utils.raise_if_valid_subsets_unintentionally_ignored(named)
        named.dataset.valid_subset = "valid"
        try:
            data_utils.raise_if_valid_subsets_unintentionally_ignored(named)
        except ValueError:
            return
    raise AssertionError("valid1 is ignored without a word")


def gloo_threads():
    """A model is wrapped, and the process group is gone afterwards."""
    with process_group():
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
        model(torch.ones(1, 2)).sum().backward()
    del model
    if left := gloo_threads_alive():
        raise AssertionError(f"threads of the destroyed process group: {left}")


def gloo_threads_alive():
    names = (path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    return sorted(name for name in names if "gloo" in name)


PROBES = [
    untouched_logging,
    checkpoint_globals,
    resume_broadcast,
    numpy_names_sample_break_mode_eos,
    numpy_names_num_batch_buckets,
    numpy_names_span_masking,
    numpy_names_crf,
    encoder_fast_path,
    named_subsets,
    gloo_threads,
    cpu_ddp,
]


def main():
    met = {"fairseq": fairseq.__version__}
    for probe in PROBES:
        try:
            met[probe.__name__] = probe()
        except Exception as error:
            met[probe.__name__] = f"{type(error).__name__}: {error}"[:2000]
    print(json.dumps(met), flush=True)
    if gloo_threads_alive():
        os._exit(0)  # the fault's end, a process that aborts at exit, is not what is asked here


if __name__ == "__main__":
    main()
