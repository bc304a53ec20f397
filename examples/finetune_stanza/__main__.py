"""A parser trained with Stanza, tuned by a sentiment classifier: what one gains and the other loses.

Stanza's own trainer makes a small parser from UD English EWT. It becomes a component of a spaCy pipeline, in
which a text classifier reads its trees and is trained on SST::

    python -m examples.finetune_stanza
"""

from __future__ import annotations

import argparse
import logging
import time

from diffdecode.files.claim import lock
from examples._shared.commands import add_device, add_out, one_line_errors
from examples._shared.spacy_training import use_device
from examples._shared.tables import save_markdown
from examples.finetune_stanza.report import given_back, score_table, start_line, tree_changes
from examples.finetune_stanza.stanza_parser import train_parser
from examples.finetune_stanza.systems import SYSTEMS, convert_data, run_system
from spacy_components.ml.stanza.checkpoint import CheckpointFiles
from spacy_components.stanza.import_parser import import_parser


@one_line_errors("finetune_stanza")
def main(argv: list[str] | None = None) -> None:
    """The command; what an earlier call has finished is not done again."""
    args = _arguments().parse_args(argv)
    use_device(args.device)
    logging.getLogger("stanza").setLevel(logging.INFO)
    started = time.process_time()
    lock(args.out)
    checkpoint = train_parser(args.out, args.parser_steps)
    print(f"{checkpoint}: {time.process_time() - started:.0f} s of CPU time")
    data = convert_data(args.out)
    untuned = import_parser(CheckpointFiles(checkpoint))
    lines = [start_line(untuned, checkpoint, data, args.out)]
    rows = [
        run_system(system, seed, checkpoint, data, args)
        for seed in range(args.seeds)
        for system in args.systems
    ]
    lines += score_table(rows)
    lines += given_back(args, data)
    lines += tree_changes(args, data)
    save_markdown(args.out / "table.md", "\n".join(lines))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.finetune_stanza", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--parser-steps", type=int, default=600, help="Stanza's steps of 2000 words")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--reviews", type=int, default=3000, help="reviews to train on; 0 for all 6,920")
    parser.add_argument("--epochs", type=float, default=3.0, help="how often each review is seen")
    parser.add_argument("--trees", type=float, default=0.1, help="share of the treebank that is mixed in")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs of each system")
    parser.add_argument("--grad-factor", type=float, default=0.1)
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--learn-rate", type=float, default=0.001)
    add_out(parser, "runs/finetune-stanza")
    add_device(parser, "cpu")
    return parser


if __name__ == "__main__":
    main()
