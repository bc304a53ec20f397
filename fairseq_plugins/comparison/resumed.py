"""fairseq-train that goes on and remembers its patience: ``... resumed BEST FRUITLESS ARGUMENTS``.

fairseq keeps the number of validations without a better score in its process alone; a run that was killed and
went on would train for longer than one that was not.
"""

import sys
from collections.abc import Sequence


def patience_used(scores: Sequence[float], larger_is_better: bool) -> tuple[float, int]:
    """``(best score, validations since it)``, as fairseq counts them: an equal score is no better one."""
    best, fruitless = scores[0], 0
    for score in scores[1:]:
        if score > best if larger_is_better else score < best:
            best, fruitless = score, 0
        else:
            fruitless += 1
    return best, fruitless


def main() -> None:
    """The command."""
    from fairseq_cli import train

    best, fruitless = sys.argv[1:3]
    train.should_stop_early.best, train.should_stop_early.num_runs = float(best), int(fruitless)
    sys.argv[1:3] = []
    train.cli_main()


if __name__ == "__main__":
    main()
