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
        if (error.name or "").partition(".")[0] in ("diffdecode", "fairseq_plugins"):
            raise
        sys.exit(f"{command} needs {error.name}, which is not installed: {INSTALL}")
