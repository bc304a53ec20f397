"""What every command does with bad input: one line that names it, and exit code 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import spacy
from spacy.language import Language
from wasabi import msg

from diffdecode.files.text import FormatError


@contextmanager
def one_line_errors(title: str) -> Iterator[None]:
    """Ends the command with the title and one line for a ValueError, OSError or unknown language."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        msg.fail(title, " ".join(str(error).splitlines()), exits=1)


def load_pipeline(path: str | Path) -> Language:
    """The pipeline of a package's name or a folder.

    Raises OSError if there is none, FormatError (a ValueError) if spaCy cannot read it.
    """
    try:
        return spacy.load(path)
    except OSError:
        raise
    except Exception as error:  # of JSON, msgpack, numpy, the config or a component, wherever it is damaged
        problem = f"spaCy cannot load it as a pipeline ({type(error).__name__}: {error})"
        raise FormatError(path, None, problem) from error
