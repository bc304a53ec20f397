"""Exact decisions with surrogate gradients: categorical, sequence and structure.

Knows no NLP framework; ``fairseq_plugins`` and ``spacy_components`` build on it.
"""

__version__ = "0.2.0.dev0"
