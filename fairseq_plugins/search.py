"""What a task searches, and the options of the search at test time, shared by the tasks.

The options are the tasks' because fairseq's own options of generation cannot be extended; fairseq does not
store them in checkpoints, so they are given again to ``fairseq-generate``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.configs import GenerationConfig
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from diffdecode.categorical import TOP_K_OPERATORS
from diffdecode.sequence import Hypotheses, SearchSpace, SoftBeamOptions, hard_beam, soft_beam_decode
from fairseq_plugins.options import option

# fairseq's options of generation that are used before a search is asked for.
USED_BY_FAIRSEQ = ("score_reference", "no_seed_provided")

# The same option of training and of decoding: on one command line it is given once, for both.
SCORE_NORMALIZER = (
    1.0,
    "lambda in the local score, logit - lambda log Z: 1 is the log-probability, 0 the raw logit",
    "Andor et al. 2016; Goyal et al. 2019",
)


@dataclass
class SearchConfig(FairseqDataclass):
    search: ChoiceEnum(["beam", "soft-beam"]) = option(
        "beam",
        "`beam`: hard beam search; `soft-beam`: hard back-pointers of the soft search",
        "soft beam 2018, 2.4",
    )
    search_alpha: float = option(10.0, "soft-beam only: peakedness in decoding", "2.4")
    search_operator: ChoiceEnum(sorted(TOP_K_OPERATORS)) = option(
        "peaked", "soft-beam only: continuous top-k", "Algorithm 2"
    )
    score_normalizer: float = option(*SCORE_NORMALIZER)


def translation_space(dictionary: Dictionary) -> SearchSpace:
    """Every symbol but BOS; EOS ends a hypothesis of at least one word, as fairseq-generate has it."""
    every = torch.arange(len(dictionary))
    return SearchSpace(every[every != dictionary.bos()], dictionary.eos(), dictionary.pad(), shortest=1)


def search_space(task: FairseqTask) -> SearchSpace:
    """What the decoder of a task may emit: ``task.search_space``; fairseq's own tasks translate."""
    if hasattr(type(task), "search_space"):
        return task.search_space
    return translation_space(task.target_dictionary)


def words_to_feed(space: SearchSpace, vocabulary: int) -> Tensor:
    """``[V]`` boolean: the symbols that a decoder may be fed as its own, those of the space but padding."""
    allowed = torch.zeros(vocabulary, dtype=torch.bool)
    allowed[space.symbols] = True
    if space.pad is not None:
        allowed[space.pad] = False
    return allowed


def search_function(cfg: SearchConfig) -> Callable[..., Hypotheses]:
    """``search(decoder, state, lengths, beam_size, space)`` as the options ask for it.

    Raises:
        ValueError: an alpha that is not positive, or a normaliser that is no number of at least 0.
    """
    check_score_normalizer(cfg)

    def beam(decoder, state, lengths, beam_size, space):
        return hard_beam(decoder, state, lengths, beam_size, scored_space(cfg, space))

    if cfg.search == "beam":
        return beam
    if not cfg.search_alpha > 0:
        raise ValueError(f"--search-alpha {cfg.search_alpha} must be positive")

    def soft_beam(decoder, state, lengths, beam_size, space):
        if beam_size > space.size:
            raise ValueError(f"--beam {beam_size} is more than the {space.size} symbols of a soft beam")
        options = SoftBeamOptions(beam_size, cfg.search_alpha, cfg.search_operator)
        return soft_beam_decode(decoder, state, lengths, scored_space(cfg, space), options)

    return soft_beam


def scored_space(cfg: SearchConfig, space: SearchSpace) -> SearchSpace:
    """The space with the scores that the options ask for.

    Raises:
        ValueError: a normaliser that is no number of at least 0.
    """
    check_score_normalizer(cfg)
    return replace(space, score_normalizer=cfg.score_normalizer)


def check_beam_size(beam_size: int) -> int:
    """The number of hypotheses kept for each sentence. Raises ValueError below 1."""
    if beam_size < 1:
        raise ValueError(f"--beam {beam_size} must be at least 1")
    return beam_size


def only_model(
    decodes: str, models: list[nn.Module], prefix_tokens: Tensor | None, constraints: Tensor | None
) -> nn.Module:
    """The model that a generator of ours decodes with, out of what fairseq gives to generators.

    Args:
        decodes: what decodes, for messages.
        models: one model.
        prefix_tokens: None.
        constraints: None.

    Raises:
        ValueError: more than one model, prefixes or constraints.
    """
    if len(models) != 1:
        raise ValueError(f"{decodes} decodes with one model, not with an ensemble of {len(models)}")
    if prefix_tokens is not None or constraints is not None:
        raise ValueError(f"{decodes} decodes without prefixes and constraints")
    return models[0]


def check_score_normalizer(cfg: Any) -> None:
    """Refuse a ``score_normalizer`` that no search can use.

    Raises:
        ValueError: naming the option.
    """
    if not 0.0 <= cfg.score_normalizer < math.inf:
        raise ValueError(f"--score-normalizer {cfg.score_normalizer} must be a number of at least 0")


def refuse_score_normalizer(cfg: SearchConfig, scorer: str) -> None:
    """Refuse other scores than log-probabilities where fairseq's own code computes the scores.

    Args:
        cfg: options of the task.
        scorer: what computes them, for the message.

    Raises:
        ValueError: naming the option.
    """
    if cfg.score_normalizer != 1.0:
        raise ValueError(
            f"--score-normalizer {cfg.score_normalizer} has no meaning for {scorer}, whose scores are "
            "log-probabilities; remove it"
        )


def refuse_unused_options(
    args: Any,
    search: str,
    used: tuple[str, ...],
    seq_gen_cls: Any = None,
    extra_gen_cls_kwargs: dict | None = None,
    prefix_allowed_tokens_fn: Callable | None = None,
) -> None:
    """Refuse whatever is asked of a generator, is not fairseq's default, and is not known to be used.

    Args:
        args: fairseq's options of generation.
        search: what does not use them, for the message.
        used: names of the options that it uses.
        seq_gen_cls: as in ``build_generator``.
        extra_gen_cls_kwargs: as in ``build_generator``; a language model is refused.
        prefix_allowed_tokens_fn: as in ``build_generator``.

    Raises:
        ValueError: naming the option.
    """
    default = GenerationConfig()
    for name in sorted(vars(default).keys() - {*used, *USED_BY_FAIRSEQ}):
        given, usual = getattr(args, name, None), getattr(default, name)
        if given is not None and given != usual:
            raise ValueError(f"--{name.replace('_', '-')} has no meaning for {search}; remove it")
    further = {"seq_gen_cls": seq_gen_cls, "prefix_allowed_tokens_fn": prefix_allowed_tokens_fn}
    further |= extra_gen_cls_kwargs or {}
    for name in sorted(further.keys() - {"lm_weight"}):
        if further[name] is not None:
            name = "--lm-path" if name == "lm_model" else name
            raise ValueError(f"{name} has no meaning for {search}; remove it")
