"""What is read of a word's text: a row of small integers, its *columns*, made once for each word.

Nothing but the text counts, so that a word is read the same in every process and company.
"""

import torch
from fairseq.data import Dictionary
from torch import Tensor, nn


class WordColumns(nn.Module):
    """The columns of the words of a dictionary; subclasses say what they are.

    Args:
        dictionary: of the words; a ``WordDictionary`` may hold more of them later.
    """

    def __init__(self, dictionary: Dictionary):
        super().__init__()
        self.dictionary = dictionary
        nothing = self.nothing()
        known = [
            nothing if i < dictionary.nspecial else self.columns_of(dictionary[i])
            for i in range(len(dictionary))
        ]
        self.register_buffer("columns", torch.tensor(known, dtype=torch.int32), persistent=False)

    def columns_of(self, word: str) -> list[int]:
        """The N columns of a word."""
        raise NotImplementedError

    def nothing(self) -> list[int]:
        """Those of a symbol without a text: padding, or an unknown word whose text is lost."""
        raise NotImplementedError

    def lookup(self, tokens: Tensor) -> Tensor:
        """Columns ``[..., N]`` of words ``tokens [...]``, known or not."""
        columns = self.columns
        unknown = getattr(self.dictionary, "unknown_words", ())
        new = unknown[columns.size(0) - len(self.dictionary) :]
        if new:
            found = columns.new_tensor([self.columns_of(word) for word in new])
            columns = self.columns = torch.cat([columns, found])
        return columns[tokens]


def reads_letters(model: nn.Module) -> bool:
    """Whether a model makes something of the text of words, known or not."""
    return any(isinstance(module, WordColumns) for module in model.modules())
