"""Vectors made from the spelling of a word: known or not, a word is read letter by letter."""

import zlib
from itertools import groupby

import torch
from fairseq.data import Dictionary
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_plugins.words.columns import WordColumns

NONE = "none"


class Spelling(WordColumns):
    """What all spellings share.

    Subclasses make the columns of a text (``columns_of``) and a vector of columns (``vectors``).

    Args:
        dictionary: of the words; a ``WordDictionary`` may hold more of them later.
        dim: size of the vectors.

    Attributes:
        dim: size of the vectors.
    """

    def __init__(self, dictionary: Dictionary, dim: int):
        super().__init__(dictionary)
        self.dim = dim

    @classmethod
    def nothing(cls) -> list[int]:
        """Those of a symbol without spelling: padding, or an unknown word whose text is lost."""
        return [0] * len(cls.columns_of(""))

    def vectors(self, columns: Tensor) -> Tensor:
        """``[..., dim]`` of columns ``[..., N]``; zero where all of them are 0."""
        raise NotImplementedError

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors ``[..., dim]`` of words ``tokens [...]``, known or not."""
        return self.vectors(self.lookup(tokens))


class Affixes(Spelling):
    """Sum of vectors of the word's first and last 1 to 4 letters, its lower-cased self and its shape.

    Each is one of ``BUCKETS`` rows of a table, chosen by a hash (Weinberger et al. 2009); which letters a
    language's affixes are made of need not be known.
    """

    BUCKETS = 20000
    LONGEST = 4

    def __init__(self, dictionary: Dictionary, dim: int):
        super().__init__(dictionary, dim)
        self.table = nn.EmbeddingBag(self.BUCKETS, dim, mode="sum", padding_idx=0)
        nn.init.uniform_(self.table.weight, -0.1, 0.1)

    @classmethod
    def columns_of(cls, word: str) -> list[int]:
        """Buckets of prefixes, suffixes, lower case and shape; 0 for affixes longer than the word."""
        lengths = range(1, cls.LONGEST + 1)
        prefixes = [f"{n} {word[:n]}" if n <= len(word) else None for n in lengths]
        suffixes = [f"-{n} {word[-n:]}" if n <= len(word) else None for n in lengths]
        features = [*prefixes, *suffixes, f"lower {word.lower()}", f"shape {shape(word)}"]
        return [0 if feature is None else cls._bucket(feature) for feature in features]

    @classmethod
    def _bucket(cls, feature: str) -> int:
        # Python's own hash differs from process to process.
        return 1 + zlib.crc32(feature.encode("utf-8", "surrogatepass")) % (cls.BUCKETS - 1)

    def vectors(self, columns: Tensor) -> Tensor:
        """``[..., dim]`` of columns ``[..., N]``."""
        return self.table(columns.view(-1, columns.size(-1))).view(*columns.shape[:-1], self.dim)


class Suffix(Affixes):
    """One vector: of the word's last three letters and of whether it begins with a capital.

    It says little enough to be learned from little data, where ``Affixes`` know each word by heart.
    """

    @classmethod
    def columns_of(cls, word: str) -> list[int]:
        """The bucket of the lower-cased suffix and the first letter's case."""
        return [cls._bucket(f"{shape(word[:1])} {word[-3:].lower()}" if word else "")]


def shape(word: str) -> str:
    """``Xxx-dd``: upper case ``X``, other letters ``x``, digits ``d``, the rest as it is; runs cut to two."""
    kinds = ("X" if c.isupper() else "x" if c.isalpha() else "d" if c.isdigit() else c for c in word)
    return "".join(kind * min(2, len(list(run))) for kind, run in groupby(kinds))


class CharacterCNN(Spelling):
    """The largest of each filter over windows of three bytes of the word (dos Santos and Zadrozny 2014).

    Of a long word, the first and the last bytes are read.
    """

    BYTES = 24
    BYTE_DIM = 32
    START, END = 257, 258  # bytes are 1 to 256, 0 is none

    def __init__(self, dictionary: Dictionary, dim: int):
        super().__init__(dictionary, dim)
        self.bytes = nn.Embedding(self.END + 1, self.BYTE_DIM, padding_idx=0)
        self.filters = nn.Conv1d(self.BYTE_DIM, dim, kernel_size=3, padding=1)

    @classmethod
    def columns_of(cls, word: str) -> list[int]:
        """Bytes of the word between two marks, filled up with 0."""
        code = [byte + 1 for byte in word.encode("utf-8", "surrogatepass")]
        half = cls.BYTES // 2
        code = code if len(code) <= cls.BYTES else code[:half] + code[-half:]
        return [cls.START, *code, cls.END] + [0] * (cls.BYTES - len(code))

    def vectors(self, columns: Tensor) -> Tensor:
        """``[..., dim]`` of columns ``[..., N]``."""
        words, place = columns.view(-1, columns.size(-1)).unique(dim=0, return_inverse=True)  # each word once
        found = self.filters(self.bytes(words).transpose(1, 2))  # [words, dim, N]
        outside = words.eq(0)[:, None]
        largest = found.masked_fill(outside, -torch.inf).amax(2)
        largest = largest.masked_fill(outside.all(2), 0.0)
        return F.relu(largest)[place].view(*columns.shape[:-1], self.dim)


SPELLINGS = {"affixes": Affixes, "suffix": Suffix, "cnn": CharacterCNN}
