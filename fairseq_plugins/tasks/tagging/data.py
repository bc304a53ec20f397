"""Reading word and label files binarised by fairseq-preprocess, and checking that they belong together."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fairseq.data import (
    BaseWrapperDataset,
    ConcatDataset,
    Dictionary,
    FairseqDataset,
    LanguagePairDataset,
    data_utils,
    indexed_dataset,
)
from fairseq.tasks import FairseqTask
from torch import Tensor

from diffdecode.sequence import SearchSpace

logger = logging.getLogger(__name__)


def load_words_and_labels(
    folder: str | Path, split: str, task: FairseqTask, combine: bool = False
) -> LanguagePairDataset:
    """The *split* of the *folder* as a :class:`LanguagePairDataset` without end-of-sentence symbols.

    Args:
        folder: made by fairseq-preprocess.
        split: ``train``, ``valid``, ``test`` ...
        task: whose dictionaries and options are used.
        combine: read the shards ``split1``, ``split2`` ... behind it as well, as fairseq's translation does.

    Raises:
        FileNotFoundError: the split is not there.
        ValueError: it is empty, or a line has no words or not as many labels as words; names the shard.
    """
    shards = [_load_shard(folder, split, task)]
    while combine and _prefix(folder, f"{split}{len(shards)}", task) is not None:
        shards.append(_load_shard(folder, f"{split}{len(shards)}", task))
    if len(shards) == 1:
        return make_dataset(*shards[0], task)
    ratios = [task.cfg.upsample_primary, *[1] * (len(shards) - 1)]
    return make_dataset(*(ConcatDataset(datasets, ratios) for datasets in zip(*shards)), task)


def _load_shard(folder, split, task):
    """The words and the labels of one binarised split, checked against each other."""
    prefix = _prefix(folder, split, task)
    if prefix is None:
        source, target = task.cfg.source_lang, task.cfg.target_lang
        raise FileNotFoundError(
            f"{Path(folder) / split}.{source}-{target}.{source} not found: make it with fairseq-preprocess "
            f"-s {source} -t {target} --trainpref ... --validpref ..."
        )
    words = _load(f"{prefix}.{task.cfg.source_lang}", task.source_dictionary, task.cfg.dataset_impl)
    labels = _load(f"{prefix}.{task.cfg.target_lang}", task.target_dictionary, task.cfg.dataset_impl)
    check_parallel(words, labels)
    words.warn_of_lost_letters()
    check_transitions(labels, task.search_space)
    return words, labels


def _prefix(folder, split, task):
    """``folder/split.words-labels``, or with the suffixes the other way round; None if neither is there."""
    source, target = task.cfg.source_lang, task.cfg.target_lang
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        prefix = Path(folder) / f"{split}.{pair}"
        kinds = (task.cfg.dataset_impl, "raw")  # without a kind, fairseq looks for binarised data only
        if any(indexed_dataset.dataset_exists(f"{prefix}.{source}", kind) for kind in kinds):
            return prefix
    return None


def make_dataset(
    words: FairseqDataset, labels: FairseqDataset | None, task: FairseqTask
) -> LanguagePairDataset:
    """Pair *words* and *labels* (None if unknown), both :class:`WithoutEos`, padded on the right."""
    return LanguagePairDataset(
        words,
        words.sizes,
        task.source_dictionary,
        labels,
        None if labels is None else labels.sizes,
        task.target_dictionary,
        left_pad_source=False,
        left_pad_target=False,
    )


class WithoutEos(BaseWrapperDataset):
    """A dataset of id sequences without the end-of-sentence symbol that fairseq-preprocess puts at their end.

    *sizes* ``[number of sentences]`` are the lengths with that symbol; *name* is used in error messages.
    """

    def __init__(self, dataset: Sequence[Tensor], sizes: Sequence[int], dictionary: Dictionary, name: str):
        super().__init__(dataset)
        self.name = name
        self.dictionary = dictionary
        self._sizes = np.asarray(sizes) - 1

    @property
    def sizes(self) -> np.ndarray:
        """Numbers of words, ``[number of sentences]``."""
        return self._sizes

    def __getitem__(self, index):
        ids = self.dataset[index]
        if ids[-1] != self.dictionary.eos():
            raise ValueError(
                f"{self.name}, line {index + 1}: no end-of-sentence symbol; "
                "binarise with fairseq-preprocess and its default --append-eos"
            )
        ids = ids[:-1]
        if (ids == self.dictionary.pad()).any():
            # Lengths in a batch are counted by it: the rest of the sentence would be cut off without a word.
            raise ValueError(f"{self.name}, line {index + 1}: holds fairseq's own symbol <pad>; rename it")
        return ids

    def warn_of_lost_letters(self) -> None:
        """Warn if a model is to read the letters of unknown words, and the data do not have them."""
        if not getattr(self.dictionary, "tells_apart", False) or isinstance(
            self.dataset, indexed_dataset.IndexedRawTextDataset
        ):
            return
        unknown = sum(int((ids == self.dictionary.unk()).sum()) for ids in self.dataset)
        if unknown:
            logger.warning(
                f"{self.name}: {unknown} words are not in the dictionary, and binarised data do not have "
                "their letters: they are read as <unk> and nothing more. fairseq-preprocess "
                "--dataset-impl raw keeps them; --char-features none reads no letters at all"
            )


def _load(path, dictionary, dataset_impl):
    data = Path(f"{path}.bin")
    if data.is_file() and data.stat().st_size == 0:
        raise ValueError(f"{data} is empty: is the text file that it was made from empty?")
    dataset = data_utils.load_indexed_dataset(path, dictionary, dataset_impl)
    if dataset is None:
        raise FileNotFoundError(f"{path}.idx not found: binarise both files together")
    return WithoutEos(dataset, dataset.sizes, dictionary, path)


def check_transitions(labels: "WithoutEos", space: SearchSpace) -> None:
    """Raise ValueError, naming the file and line, if a sentence has a label where it may not stand."""
    if space.transitions is None:
        return
    for i in range(len(labels)):
        ids = labels[i].long()
        wrong = space.forbidden(ids).nonzero()[:, 0].tolist()
        if wrong:
            before = [*(labels.dictionary[n] for n in ids.tolist()), "the beginning"][wrong[0] - 1]
            raise ValueError(
                f"{labels.name}, line {i + 1}: {labels.dictionary[ids[wrong[0]]]} (word {wrong[0] + 1}) "
                f"follows {before}, which --valid-transitions forbids: label in IOB2, or remove the option"
            )


def check_parallel(words: "WithoutEos", labels: "WithoutEos") -> None:
    """Raise ValueError, naming the file and line, unless every sentence has words and a label for each."""
    if len(words) == 0:
        raise ValueError(f"{words.name}: no sentences")
    if len(words) != len(labels):
        raise ValueError(
            f"{words.name} has {len(words)} lines but {labels.name} has {len(labels)}: "
            "line i of the one must hold the labels of line i of the other"
        )
    unequal = np.flatnonzero(words.sizes != labels.sizes)
    if unequal.size:
        i = unequal[0]
        raise ValueError(
            f"{labels.name}, line {i + 1}: {labels.sizes[i]} labels for {words.sizes[i]} words "
            f"({unequal.size} such lines); write one label per word"
        )
    empty = np.flatnonzero(words.sizes == 0)
    if empty.size:
        raise ValueError(
            f"{words.name}, line {empty[0] + 1}: empty line ({empty.size} such lines); "
            "remove them from both files"
        )
