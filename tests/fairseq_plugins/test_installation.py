"""What commands say where fairseq is not installed."""

import subprocess
import sys

import pytest

WITHOUT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
sys.argv = ["diffdecode-train-beam", "--help"]
{start}
"""
ENTRY_POINT = "from fairseq_plugins.train_beam import main; main()"
MODULE = "import runpy; runpy.run_module('fairseq_plugins.train_beam', run_name='__main__')"


@pytest.mark.parametrize(
    ("start", "missing"), [(ENTRY_POINT, ("fairseq", "fairseq_cli")), (MODULE, ("rich",))]
)
def test_help_without_a_package_is_the_line_that_installs_it(start, missing):
    code = WITHOUT.format(missing=missing, start=start)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"diffdecode-train-beam needs {missing[0]}, which is not installed: "
        'pip install "diffdecode[fairseq]" && pip install --no-deps fairseq==0.12.2\n'
    )
