"""What a pretrained encoder reads of a word: its pieces, by that encoder's own BPE and dictionary."""

from collections.abc import Callable

import torch
from fairseq.data import Dictionary
from torch import Tensor

from fairseq_plugins.words.columns import WordColumns


class Pieces(WordColumns):
    """The pieces of words, known and unknown, as the encoder was trained to read them.

    A sentence is read as if its words, with a space between them, had been given to the BPE together: a word
    that is not the first is split with the space before it (``gpt2`` makes it a part of the word).

    Args:
        dictionary: of the words.
        pieces: of the encoder.
        split: the pieces of a text, separated by spaces: the encoder's BPE.
    """

    # Pieces of one word that are read; the rest of a longer one is left out.
    MOST = 32

    def __init__(self, dictionary: Dictionary, pieces: Dictionary, split: Callable[[str], str]):
        self.pieces, self.split = pieces, split  # of which the columns are made
        super().__init__(dictionary)

    def columns_of(self, word: str) -> list[int]:
        """Ids of its pieces where it is the first word, and where it is not, each filled up with PAD."""
        return [*self._ids(word), *self._ids(" " + word)]

    def nothing(self) -> list[int]:
        """A word whose text is lost is one unknown piece."""
        return [*self._filled([self.pieces.unk()]), *self._filled([self.pieces.unk()])]

    def _ids(self, text: str) -> list[int]:
        found = [self.pieces.index(piece) for piece in self.split(text).split()]
        return self._filled(found[: self.MOST] or [self.pieces.unk()])

    def _filled(self, ids: list[int]) -> list[int]:
        return ids + [self.pieces.pad()] * (self.MOST - len(ids))

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder reads of sentences, between ``<s>`` and ``</s>``, and where words begin in it.

        Args:
            tokens: ``[B, T]`` words, padding behind.
            lengths: ``[B]`` numbers of words.

        Returns:
            Pieces ``[B, S]``, padding behind, and the place ``[B, T]`` of the first piece of each word, 0
            beyond its sentence.
        """
        first, later = self.lookup(tokens).long().split(self.MOST, dim=2)  # [B, T, MOST] each
        ids = torch.cat([first[:, :1], later[:, 1:]], 1)
        outside = torch.arange(tokens.size(1), device=tokens.device) >= lengths[:, None]
        ids = ids.masked_fill(outside[..., None], self.pieces.pad())
        written = ids.ne(self.pieces.pad())
        place = written.flatten(1).cumsum(1)  # <s> is at 0
        size = place[:, -1] if place.size(1) else lengths
        sentence = ids.new_full((len(ids), int(size.max()) + 3), self.pieces.pad())
        beyond = sentence.size(1) - 1  # a column for what is not written
        sentence.scatter_(1, torch.where(written.flatten(1), place, beyond), ids.flatten(1))
        sentence[:, 0] = self.pieces.bos()
        sentence.scatter_(1, size[:, None] + 1, self.pieces.eos())
        return sentence[:, :beyond], place.view(ids.shape)[..., 0].masked_fill(outside, 0)
