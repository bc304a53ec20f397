"""Shared fixtures: one torch thread (small tensors), and the folder of real data if there is one.

Properties are tried on the same examples each time and may take as long as they take, so that a busy machine
fails no test; ``HYPOTHESIS_PROFILE=explore`` tries new examples, and more of them (``exploring.py``).
"""

import gc
import os
import sys
from collections import Counter
from collections.abc import ItemsView, KeysView, Set
from pathlib import Path

import pytest
import torch

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # a bare machine with a card: most tests with the mark gpu do without
    settings = None

ROOT = Path(__file__).resolve().parents[1]

if settings is not None:
    patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("suite", derandomize=True, **patient)
    settings.register_profile("explore", **patient)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_make_parametrize_id(val, argname):
    """Bytes give tests no names: compressed ones differ from second to second, so from worker to worker."""
    return argname if isinstance(val, bytes) else None


def pytest_generate_tests(metafunc):
    """Sets give no parameters: their order differs from worker to worker."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        if isinstance(mark.args[1], Set) and not isinstance(mark.args[1], KeysView | ItemsView):
            raise TypeError(
                f"{metafunc.definition.nodeid}: sort the values of {mark.args[0]}, which are a set"
            )


def pytest_collection_modifyitems(config, items):
    """With several workers, to which files are given one by one, those with the fewest tests come first.

    They run whole commands and take longest: the last one would keep all but one worker waiting.
    """
    if hasattr(config, "workerinput"):
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: tests[item.path])


def pytest_collection_finish(session):
    """What has been imported stays: nothing need look through all of it again and again.

    Neither the garbage collector, nor spaCy's registries, for which all entry points are one list.
    """
    gc.collect()
    gc.freeze()
    catalogue = sys.modules.get("catalogue")
    found = getattr(catalogue, "AVAILABLE_ENTRY_POINTS", None)
    if hasattr(found, "select"):
        catalogue.AVAILABLE_ENTRY_POINTS = {group: list(found.select(group=group)) for group in found.groups}


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def real_data():
    """``$DIFFDECODE_DATA`` (default ``../shared/data`` beside the checkout); skips without it."""
    folder = Path(os.environ.get("DIFFDECODE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set DIFFDECODE_DATA)")
    return folder


@pytest.fixture
def forked_commands(monkeypatch):
    """Commands that a comparison starts run in forks, where a real process would import everything anew.

    What it does in its own process does not wait for hydra.
    """
    from composed import compose_again
    from fairseq.dataclass import utils
    from forked import Forked

    from fairseq_plugins.comparison import runs

    monkeypatch.setattr(runs, "start", Forked)
    monkeypatch.setattr(utils, "compose", compose_again)


@pytest.fixture(params=["standin", pytest.param("cuda", marks=pytest.mark.gpu)])
def accelerator(request):
    """A CUDA device, and its stand-in, which is there without one."""
    from accelerators import accelerator_named

    with accelerator_named(request.param) as found:
        yield found
