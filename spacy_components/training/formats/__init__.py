"""Files that become spaCy documents: SDP 2015, CoNLL-U (basic and enhanced), labelled text, ``.spacy``.

Each reader yields one ``Doc`` a sentence, opens ``.gz`` files too, and names the file and the line of bad
input (``diffdecode.files.text.FormatError``, a ``ValueError``).
"""

from spacy_components.training.formats.by_suffix import FORMATS, read_docs
from spacy_components.training.formats.conllu_trees import read_conllu
from spacy_components.training.formats.labelled_text import read_labelled_text
from spacy_components.training.formats.sdp2015 import read_sdp2015, write_sdp2015

__all__ = ["FORMATS", "read_conllu", "read_docs", "read_labelled_text", "read_sdp2015", "write_sdp2015"]
