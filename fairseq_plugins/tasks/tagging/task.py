"""The task ``sequence_tagging``: one label per word."""

# fairseq turns the fields of a config into command-line options and understands only typing.Optional.
# ruff: noqa: UP045, RUF009

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

from fairseq import utils
from fairseq.data import Dictionary, FairseqDataset, data_utils
from fairseq.data.indexed_dataset import get_available_dataset_impl
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II
from torch import Tensor, nn

from diffdecode.sequence import SearchSpace
from fairseq_plugins.options import option
from fairseq_plugins.progress import ScheduledCriterionTask
from fairseq_plugins.search import (
    SearchConfig,
    refuse_score_normalizer,
    refuse_unused_options,
    search_function,
)
from fairseq_plugins.tasks.tagging.data import WithoutEos, load_words_and_labels, make_dataset
from fairseq_plugins.tasks.tagging.dictionaries import TrainedDictionaries, label_ids, refuse_joined
from fairseq_plugins.tasks.tagging.generator import TaggingGenerator, decode
from fairseq_plugins.tasks.tagging.incremental import IncrementalGenerator
from fairseq_plugins.tasks.tagging.metrics import TagCounter, reduce_counts
from fairseq_plugins.tasks.tagging.transitions import bio_transitions
from fairseq_plugins.words import WordDictionary, reads_letters, trained_options

# fairseq's options of generation that decoding of one label per word uses.
USED = ("beam", "nbest")


@dataclass
class SequenceTaggingConfig(SearchConfig):
    data: Optional[str] = option(
        None, "folder made by fairseq-preprocess (the first argument of the command)", "fairseq"
    )
    source_lang: Optional[str] = option(
        None, "suffix of the word files (`-s`); none: found in the folder", "fairseq", alias="-s"
    )
    target_lang: Optional[str] = option(
        None, "suffix of the label files (`-t`); none: found in the folder", "fairseq", alias="-t"
    )
    eval_beam: int = option(1, "beam size of decoding in validation, by `--search`; 1 is greedy", "ours")
    upsample_primary: int = option(
        1, "how often an epoch reads `train`, where there are shards `train1`, `train2` ...", "fairseq"
    )
    valid_transitions: bool = option(
        False,
        "BIO: no search, in training and in decoding, writes an `I-X` that continues no span of X",
        "ours",
    )
    incremental: bool = option(
        False,
        "fairseq-interactive: label words as they arrive, one or more a line, and keep the beam; an empty "
        "line, or the end of the input, ends a sentence, and `F-` lines hold the labels that have become "
        "final",
        "ours",
    )
    # Options of other groups that the task has to know.
    post_process: Optional[str] = II("common_eval.post_process")
    best_checkpoint_metric: Optional[str] = II("checkpoint.best_checkpoint_metric")
    dataset_impl: Optional[ChoiceEnum(get_available_dataset_impl())] = II("dataset.dataset_impl")


@register_task("sequence_tagging", dataclass=SequenceTaggingConfig)
class SequenceTaggingTask(ScheduledCriterionTask, FairseqTask):
    """Label every word of a sentence.

    Neither words nor labels end in an end-of-sentence symbol, and decoding takes exactly as many steps as
    there are words.

    Attributes:
        label_ids: ids ``[L]`` of the labels that can be predicted: neither padding nor the unknown label.
        epoch: the current epoch, from 1.
    """

    def __init__(self, cfg: SequenceTaggingConfig, words: Dictionary, labels: Dictionary):
        super().__init__(cfg)
        if cfg.eval_beam < 1:
            raise ValueError(f"--eval-beam {cfg.eval_beam} must be at least 1")
        if cfg.upsample_primary < 1:
            raise ValueError(f"--upsample-primary {cfg.upsample_primary} must be at least 1")
        self._words, self._labels = words, labels
        self.label_ids = label_ids(labels)
        names = [labels[i] for i in self.label_ids.tolist()]
        transitions = bio_transitions(names) if cfg.valid_transitions else None
        self._space = SearchSpace(self.label_ids, transitions=transitions)
        refuse_joined(words, labels, cfg.target_lang)
        self._counter = TagCounter(labels, self.label_ids)
        self._counter.refuse_missing(cfg.best_checkpoint_metric)

    @classmethod
    def setup_task(cls, cfg: SequenceTaggingConfig, **kwargs) -> "SequenceTaggingTask":
        """The task for the data folder, with its dictionaries.

        Raises:
            ValueError: no data is found in the folder, or an option cannot work with it.
        """
        folder = utils.split_paths(cfg.data)[0]
        if cfg.source_lang is None or cfg.target_lang is None:
            cfg.source_lang, cfg.target_lang = data_utils.infer_language_pair(folder)
        if cfg.source_lang is None or cfg.target_lang is None:
            raise ValueError(f"{folder}: no word and label files found; name their suffixes with -s and -t")
        words, labels = (
            kind.load(os.path.join(folder, f"dict.{suffix}.txt"))
            for kind, suffix in ((WordDictionary, cfg.source_lang), (Dictionary, cfg.target_lang))
        )
        return cls(cfg, words, labels)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> nn.Module:
        """The model, which remembers the dictionaries it is trained with.

        If it reads the letters of words, unknown words of text get ids of their own from now on.
        """
        if from_checkpoint:
            cfg = trained_options(cfg)
        model = super().build_model(cfg, from_checkpoint)
        if reads_letters(model):
            self._words.tell_unknown_apart()
        suffixes = self.cfg.source_lang, self.cfg.target_lang
        model.trained_dictionaries = TrainedDictionaries(self._words, self._labels, suffixes)
        return model

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Load a split; ``combine`` adds its shards ``split1``, ``split2`` ...

        Raises:
            FileNotFoundError: the split is not there.
            ValueError: words and labels do not belong together; names the file and line.
        """
        if self.cfg.incremental:
            raise ValueError("--incremental reads what is typed in (fairseq-interactive): remove it")
        folders = utils.split_paths(self.cfg.data)
        folder = folders[(epoch - 1) % len(folders)] if split == "train" else folders[0]
        self.datasets[split] = load_words_and_labels(folder, split, self, combine)

    def build_dataset_for_inference(
        self, src_tokens: list[Tensor], src_lengths: list[int], constraints: Any = None, **kwargs
    ) -> FairseqDataset:
        """Sentences that are typed in, each ending with the end-of-sentence symbol.

        Raises:
            ValueError: several, where one line after the other is to be read.
        """
        if self.cfg.incremental and len(src_tokens) > 1:
            raise ValueError("--incremental reads one line at a time: remove --buffer-size and --batch-size")
        words = WithoutEos(src_tokens, src_lengths, self.source_dictionary, "input")
        return make_dataset(words, None, self)

    def build_generator(
        self,
        models: list[nn.Module],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict | None = None,
        prefix_allowed_tokens_fn: Callable | None = None,
    ) -> Any:
        """The search for labels, or fairseq's scorer of given ones with ``--score-reference``.

        Args:
            models: one model.
            args: fairseq's options of generation.
            seq_gen_cls: as the two below, not used.
            extra_gen_cls_kwargs: a language model is refused.
            prefix_allowed_tokens_fn: not used.

        Raises:
            ValueError: an option that tagging, or the scorer, does not use; ``incremental`` with a model that
                needs whole sentences.
        """
        if getattr(args, "score_reference", False):
            refuse_score_normalizer(self.cfg, "--score-reference")
            return super().build_generator(models, args, extra_gen_cls_kwargs=extra_gen_cls_kwargs)
        if self.cfg.post_process is not None:
            raise ValueError(
                f"--post-process {self.cfg.post_process} would join labels as it joins pieces of words: "
                "remove it"
            )
        refuse_unused_options(
            args, "--task sequence_tagging", USED, seq_gen_cls, extra_gen_cls_kwargs, prefix_allowed_tokens_fn
        )
        if self.cfg.incremental:
            return IncrementalGenerator(models, self, args.beam)
        return TaggingGenerator(self.search_space, args.beam, search_function(self.cfg))

    def valid_step(self, sample: dict, model: nn.Module, criterion: nn.Module) -> tuple[Tensor, int, dict]:
        """The criterion's loss, and counts of right labels and spans from decoding with ``--eval-beam``."""
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        search = search_function(self.cfg)
        best = decode(model, sample["net_input"], self.search_space, self.cfg.eval_beam, search).symbols[:, 0]
        logging_output.update(self._counter.count(sample["target"], best))
        return loss, sample_size, logging_output

    def reduce_metrics(self, logging_outputs: list[dict], criterion: nn.Module) -> None:
        """Log accuracy and F1 of the decoded labels, and what the criterion logs."""
        # First come, first logged: these are decoded labels, a criterion's own accuracy is teacher-forced.
        reduce_counts(logging_outputs)
        super().reduce_metrics(logging_outputs, criterion)

    @property
    def search_space(self) -> SearchSpace:
        """What a hypothesis may hold: labels, one for each word, and which may follow which."""
        return self._space

    @property
    def source_dictionary(self) -> Dictionary:
        """The words."""
        return self._words

    @property
    def target_dictionary(self) -> Dictionary:
        """The labels."""
        return self._labels
