"""What a task searches, and the options of the search at test time, shared by the tasks.

The options are the tasks' because fairseq's own options of generation cannot be extended; fairseq does not
store them in checkpoints, so they are given again to ``fairseq-generate``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.configs import GenerationConfig
from fairseq.tasks import FairseqTask

from diffdecode.categorical import TOP_K_OPERATORS
from diffdecode.sequence import Hypotheses, SearchSpace, SoftBeamOptions, hard_beam, soft_beam_decode
from fairseq_plugins.options import option

# fairseq's options of generation that are used before a search is asked for.
USED_BY_FAIRSEQ = ("score_reference", "no_seed_provided")


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


def translation_space(dictionary: Dictionary) -> SearchSpace:
    """Every symbol but BOS; EOS ends a hypothesis of at least one word, as fairseq-generate has it."""
    every = torch.arange(len(dictionary))
    return SearchSpace(every[every != dictionary.bos()], dictionary.eos(), dictionary.pad(), shortest=1)


def search_space(task: FairseqTask) -> SearchSpace:
    """What the decoder of a task may emit: ``task.search_space``; fairseq's own tasks translate."""
    if hasattr(type(task), "search_space"):
        return task.search_space
    return translation_space(task.target_dictionary)


def search_function(cfg: SearchConfig) -> Callable[..., Hypotheses]:
    """``search(decoder, state, lengths, beam_size, space)`` as the options ask for it.

    Raises:
        ValueError: an alpha that is not positive.
    """
    if cfg.search == "beam":
        return hard_beam
    if not cfg.search_alpha > 0:
        raise ValueError(f"--search-alpha {cfg.search_alpha} must be positive")

    def search(decoder, state, lengths, beam_size, space):
        if beam_size > space.size:
            raise ValueError(f"--beam {beam_size} is more than the {space.size} symbols of a soft beam")
        options = SoftBeamOptions(beam_size, cfg.search_alpha, cfg.search_operator)
        return soft_beam_decode(decoder, state, lengths, space, options)

    return search


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
