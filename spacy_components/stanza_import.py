"""The former name of :mod:`spacy_components.stanza.import_parser`; goes with version 0.3."""

import warnings

from spacy_components.stanza.import_parser import import_parser, main  # noqa: F401

warnings.warn(
    "spacy_components.stanza_import is now spacy_components.stanza.import_parser",
    DeprecationWarning if __name__ != "__main__" else FutureWarning,
    stacklevel=2,
)

if __name__ == "__main__":
    main()
