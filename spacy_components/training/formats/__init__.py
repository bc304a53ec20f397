"""Files that become spaCy documents: SDP 2015, CoNLL-U (basic and enhanced), labelled text, ``.spacy``.

Each reader yields one ``Doc`` a sentence, opens ``.gz`` files too, and names the file and the line of bad
input (``diffdecode.files.text.FormatError``, a ``ValueError``). A further format is one file, which registers
itself in ``FORMATS``.
"""

from diffdecode.registry import import_members
from spacy_components.training.formats.base import FORMATS, Format, Wanted
from spacy_components.training.formats.by_suffix import read_docs
from spacy_components.training.formats.conllu_trees import read_conllu
from spacy_components.training.formats.labelled_text import read_labelled_text
from spacy_components.training.formats.sdp2015 import read_sdp2015, write_sdp2015

import_members(__name__, __path__)

__all__ = [
    "FORMATS",
    "Format",
    "Wanted",
    "read_conllu",
    "read_docs",
    "read_labelled_text",
    "read_sdp2015",
    "write_sdp2015",
]
