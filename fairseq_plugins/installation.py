"""What a command says where fairseq, or another package of the extra ``fairseq``, is missing."""

import contextlib
import sys
from collections.abc import Iterator

INSTALL = 'pip install "diffdecode[fairseq]" && pip install --no-deps fairseq==0.12.2'


@contextlib.contextmanager
def needs_fairseq(command: str) -> Iterator[None]:
    """Around a command's imports: one that fails ends the program with the line that installs everything."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "diffdecode", "fairseq_plugins"):
            raise
        sys.exit(f"{command} needs {package}, which is not installed: {INSTALL}")
