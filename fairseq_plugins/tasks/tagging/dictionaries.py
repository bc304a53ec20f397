"""Are these the dictionaries of words and of labels, and those that a checkpoint was trained with?"""

import hashlib

import torch
from fairseq.data import Dictionary
from torch import Tensor, nn


def label_ids(dictionary: Dictionary) -> Tensor:
    """Ids ``[L]`` of the real labels of a label dictionary, in increasing order.

    fairseq-preprocess fills a dictionary up with symbols ``madeupword...`` of count 0 (``--padding-factor``).

    Raises:
        ValueError: there are none.
    """
    ids = [i for i in range(dictionary.nspecial, len(dictionary)) if dictionary.count[i] > 0]
    if not ids:
        raise ValueError("the label dictionary holds no label: is the label file empty?")
    return torch.tensor(ids)


def refuse_joined(words: Dictionary, labels: Dictionary, suffix: str) -> None:
    """Refuse one dictionary of words and labels: every word would be a label that can be predicted.

    Raises:
        ValueError: naming the file ``dict.suffix.txt`` and what to do.
    """
    if words.symbols == labels.symbols and words.count == labels.count:
        raise ValueError(
            f"dict.{suffix}.txt holds the words, too: preprocess without --joined-dictionary, so that words "
            "and labels have a dictionary each"
        )


class TrainedDictionaries(nn.Module):
    """A part of a tagger that keeps, in its checkpoints, which dictionaries it was trained with.

    Embeddings and output layer know symbols by their number only: with a dictionary of the same size in
    another order, a model loads and writes nonsense. Checkpoints without this part load as they are.

    Args:
        words: the dictionary of the words.
        labels: the dictionary of the labels.
        suffixes: those of the two files ``dict.suffix.txt``, for messages.
    """

    # Averages of weights leave entries alone whose name holds "version" (fairseq's --store-ema).
    KEY = "dictionary_versions"

    def __init__(self, words: Dictionary, labels: Dictionary, suffixes: tuple[str, str]):
        super().__init__()
        self.suffixes = suffixes
        self.register_buffer(self.KEY, torch.stack([_fingerprint(words), _fingerprint(labels)]))

    def _load_from_state_dict(self, state_dict, prefix, *unused):
        """Compare instead of load.

        Raises:
            ValueError: the checkpoint has another dictionary; names its file and what to do.
        """
        stored = state_dict.get(prefix + self.KEY)
        if stored is None:
            return
        same = (stored.cpu() == getattr(self, self.KEY).cpu()).all(1).tolist()
        files = " and ".join(f"dict.{suffix}.txt" for suffix, ok in zip(self.suffixes, same) if not ok)
        if files:
            raise ValueError(
                f"{files}: not what the checkpoint was trained with (other symbols, or another order); give "
                "the data folder of its training, or one binarised with --srcdict and --tgtdict from there"
            )


def _fingerprint(dictionary: Dictionary) -> Tensor:
    """``[32]`` integers that stand for the symbols and their order."""
    digest = hashlib.sha256("\n".join(dictionary.symbols).encode("utf-8", "surrogatepass")).digest()
    return torch.tensor(list(digest), dtype=torch.int32)  # not uint8: checkpoints are averaged by sums
