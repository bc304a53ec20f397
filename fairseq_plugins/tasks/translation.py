"""The task ``direct_loss_translation``: fairseq's translation, with schedules and the soft beam."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch import nn

from diffdecode.sequence import SearchSpace
from fairseq_plugins.options import option
from fairseq_plugins.progress import ScheduledCriterionTask
from fairseq_plugins.search import (
    SearchConfig,
    check_score_normalizer,
    refuse_score_normalizer,
    refuse_unused_options,
    search_function,
    translation_space,
)
from fairseq_plugins.soft_beam_generator import SoftBeamGenerator

# fairseq's options of generation that a search of ours uses.
USED = ("beam", "nbest", "max_len_a", "max_len_b", "lenpen", "unnormalized", "sacrebleu")


@dataclass
class DirectLossTranslationConfig(SearchConfig, TranslationConfig):
    """fairseq's options of translation, and those of the search at test time."""

    # fairseq's default is -1: where there are shards, it takes sentences away instead of adding them.
    upsample_primary: int = option(
        1, "how often an epoch reads `train`, where there are shards `train1`, `train2` ...", "fairseq"
    )


@register_task("direct_loss_translation", dataclass=DirectLossTranslationConfig)
class DirectLossTranslationTask(ScheduledCriterionTask, TranslationTask):
    """Translation whose criterion is told the epoch, and whose generation can use the soft beam.

    Checkpoints, data and options are those of ``--task translation``.
    """

    @property
    def search_space(self) -> SearchSpace:
        """What a hypothesis may hold: every symbol but BOS."""
        return translation_space(self.target_dictionary)

    def build_generator(
        self,
        models: list[nn.Module],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict | None = None,
        prefix_allowed_tokens_fn: Callable | None = None,
    ) -> Any:
        """fairseq's search; the soft beam with ``--search soft-beam``; or our hard beam, which can compare
        scores that are not log-probabilities, with another ``--score-normalizer`` than 1.

        Args:
            models: one model for a search of ours.
            args: fairseq's options of generation.
            seq_gen_cls: as the two below, for fairseq's search only.
            extra_gen_cls_kwargs: as in fairseq.
            prefix_allowed_tokens_fn: as in fairseq.

        Raises:
            ValueError: an option that the search does not use.
        """
        check_score_normalizer(self.cfg)
        scores_reference = getattr(args, "score_reference", False)
        if scores_reference:
            refuse_score_normalizer(self.cfg, "--score-reference")
        if scores_reference or (self.cfg.search == "beam" and self.cfg.score_normalizer == 1.0):
            return super().build_generator(
                models, args, seq_gen_cls, extra_gen_cls_kwargs, prefix_allowed_tokens_fn
            )
        search = f"--search {self.cfg.search} --score-normalizer {self.cfg.score_normalizer:g}"
        refuse_unused_options(args, search, USED, seq_gen_cls, extra_gen_cls_kwargs, prefix_allowed_tokens_fn)
        return SoftBeamGenerator(self, args, search_function(self.cfg))
