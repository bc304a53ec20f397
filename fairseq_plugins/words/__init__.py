"""What a tagger knows of a word: its row in a table of vectors, and its spelling."""

from fairseq_plugins.words.columns import reads_letters
from fairseq_plugins.words.dictionary import WordDictionary
from fairseq_plugins.words.embedding import (
    WordEmbedding,
    WordEmbeddingConfig,
    trained_options,
    word_embedding,
)
from fairseq_plugins.words.pieces import Pieces
from fairseq_plugins.words.spelling import NONE, SPELLINGS, Spelling

__all__ = [
    "NONE",
    "SPELLINGS",
    "Pieces",
    "Spelling",
    "WordDictionary",
    "WordEmbedding",
    "WordEmbeddingConfig",
    "reads_letters",
    "trained_options",
    "word_embedding",
]
