"""Shared fixtures: one torch thread (small tensors), and the folder of real data if there is one."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


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
