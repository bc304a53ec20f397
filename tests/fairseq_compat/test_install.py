"""A wheel and an editable wheel bring the import hook along, and an interpreter starts it."""

import subprocess
import zipfile

import pytest
from installed import build, install

HOOKED = "any(finder.__name__ == 'FairseqFinder' for finder in sys.meta_path if isinstance(finder, type))"
LIGHT = "not {'torch', 'numpy', 'fairseq', 'diffdecode', 'fairseq_plugins'} & set(sys.modules)"


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_hook_is_installed(kind, tmp_path):
    wheel = build(kind, tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert "diffdecode-fairseq.pth" in names
    if kind == "wheel":
        assert {"fairseq_compat/hook.py", "fairseq_plugins/__init__.py", "diffdecode/__init__.py"} <= set(
            names
        )
        assert not [name for name in names if name.startswith(("tests", "tools", "examples", "benchmarks"))]
    record = next(name for name in names if name.endswith("RECORD"))
    assert "diffdecode-fairseq.pth," in zipfile.ZipFile(wheel).read(record).decode(), "not uninstalled"

    python, _ = install(wheel, tmp_path / "environment")
    for switch, hooked in (("", "True"), ("1", "False")):
        run = subprocess.run(
            [python, "-c", f"import sys; print({HOOKED}, {LIGHT})"],
            env={"DIFFDECODE_NO_FAIRSEQ_COMPAT": switch},
            cwd=tmp_path / "environment",
            capture_output=True,
            text=True,
        )
        assert run.stdout.split() == [hooked, "True"], run.stderr
        assert not run.stderr
