"""A dictionary that tells the words apart that it does not hold."""

import threading
from typing import Any

from fairseq.data import Dictionary

# One lock for all dictionaries: they are pickled and copied, a lock is not.
_GROWING = threading.Lock()


class WordDictionary(Dictionary):
    """fairseq's dictionary, which, once it is asked to, gives each unknown word an id of its own.

    In binarised data every unknown word is ``<unk>``, and its spelling is lost. Here the unknown words of
    text (typed in, or data of ``--dataset-impl raw``) get ids from ``len(dictionary)`` on, in the order in
    which they are met. Ids differ from process to process: what a model makes of them must depend on the
    text ``dictionary[id]`` alone. An unknown word takes the memory of its text as long as the process lives.

    Attributes:
        unknown_words: texts of the unknown words, by ``id - len(dictionary)``.
        tells_apart: whether unknown words get ids of their own.
    """

    def __init__(self, **special: Any):
        super().__init__(**special)
        self.unknown_words: list[str] = []
        self.tells_apart = False
        self._unknown_ids: dict[str, int] = {}

    def tell_unknown_apart(self) -> None:
        """From now on, give unknown words ids of their own, which only a model that reads letters knows."""
        self.tells_apart = True

    def index(self, sym: str) -> int:
        """The id of a word."""
        known = super().index(sym)
        if not self.tells_apart or known != self.unk_index or sym == self.unk_word:
            return known
        with _GROWING:
            found = self._unknown_ids.get(sym)
            if found is None:
                found = self._unknown_ids[sym] = len(self) + len(self.unknown_words)
                self.unknown_words.append(sym)
        return found

    def __getitem__(self, idx: int) -> str:
        """The text of an id."""
        beyond = idx - len(self)
        if 0 <= beyond < len(self.unknown_words):
            return self.unknown_words[beyond]
        return super().__getitem__(idx)

    def __deepcopy__(self, memo: dict) -> "WordDictionary":
        """The dictionary itself: a copy of a model (an average of weights) reads the same words."""
        return self
