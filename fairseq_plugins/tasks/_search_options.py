"""Options of the search at test time, shared by the tasks.

They are the tasks' because fairseq's own options of generation cannot be extended; fairseq does not store
them in checkpoints, so they are given again to ``fairseq-generate``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from diffdecode.categorical import TOP_K_OPERATORS
from diffdecode.sequence import Hypotheses, SoftBeamOptions, hard_beam, soft_beam_decode


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
