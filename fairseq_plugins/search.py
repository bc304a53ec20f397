"""Options of the search at test time, shared by the tasks.

They are the tasks' because fairseq's own options of generation cannot be extended; fairseq does not store
them in checkpoints, so they are given again to ``fairseq-generate``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.configs import GenerationConfig

from diffdecode.categorical import TOP_K_OPERATORS
from diffdecode.sequence import Hypotheses, SoftBeamOptions, hard_beam, soft_beam_decode

# Options of fairseq-generate that our searches would ignore: using one must not go unnoticed.
UNUSED_OPTIONS = (
    "sampling",
    "diverse_beam_groups",
    "diversity_rate",
    "match_source_len",
    "no_repeat_ngram_size",
    "constraints",
    "prefix_size",
    "temperature",
    "iter_decode_with_beam",
    "retain_dropout",
)


@dataclass
class SearchConfig(FairseqDataclass):
    search: ChoiceEnum(["beam", "soft-beam"]) = field(
        default="beam",
        metadata={
            "help": "decode with the hard beam, or with hard back-pointers of the soft beam (2018, 2.4)"
        },
    )
    search_alpha: float = field(
        default=10.0, metadata={"help": "soft-beam only: peakedness in decoding, in 1/score^2"}
    )
    search_operator: ChoiceEnum(sorted(TOP_K_OPERATORS)) = field(
        default="peaked", metadata={"help": "soft-beam only: relaxation of the top-k"}
    )


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


def refuse_unused_options(args, search: str, more: tuple[str, ...] = (), extra: dict | None = None) -> None:
    """Refuse options of generation that ``search`` has no use for.

    Args:
        args: fairseq's generation options.
        search: what does not use them, for the message.
        more: names of options besides ``UNUSED_OPTIONS``.
        extra: further arguments of fairseq's generator; a language model is refused.

    Raises:
        ValueError: naming the option.
    """
    default = GenerationConfig()
    for name in (*UNUSED_OPTIONS, *more):
        if getattr(args, name, getattr(default, name)) != getattr(default, name):
            raise ValueError(f"--{name.replace('_', '-')} has no meaning for {search}; remove it")
    if (extra or {}).get("lm_model") is not None:
        raise ValueError(f"--lm-path has no meaning for {search}; remove it")
