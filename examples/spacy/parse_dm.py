"""Train a semantic dependency parser on DM graphs.

In minutes, and full size::

    python -m examples.spacy.parse_dm
    python -m examples.spacy.parse_dm --steps 8000

With the paper's loss, which needs a warm start (README.md), and with its model::

    python -m examples.spacy.parse_dm --loss hinge --warm-steps 200
    python -m examples.spacy.parse_dm --loss hinge --warm-steps 200 --scorer neurbo

With word vectors, which another command makes of a package::

    python -m examples.spacy.glove runs/glove
    python -m examples.spacy.parse_dm --vectors runs/glove
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from examples._shared.commands import add_device, add_out, one_line_errors
from examples._shared.spacy_training import converted, learn_rate, train_from_scratch, train_on, use_device
from examples.spacy._configs import CONFIGS
from spacy_components.training.corpus import create_corpus
from spacy_components.training.scorers import GRAPH_KEYS, sdp_scores

SCORERS: dict[str, dict[str, Any]] = {
    "biaffine": {},
    "neurbo": {"@architectures": "diffdecode.NeurboParser.v1", "lstm_width": 100, "lstm_depth": 1},
}
SOURCE = "sdp_dm_wescience/{}.sdp.gz"


@one_line_errors("parse_dm")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.spacy.parse_dm", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--steps", type=int, default=800, help="steps of 1000 words")
    parser.add_argument("--loss", choices=("local", "likelihood", "hinge"), default="local")
    parser.add_argument(
        "--warm-steps", type=int, default=0, help="how many of the steps come first, with the local loss"
    )
    parser.add_argument("--scorer", choices=SCORERS, default="biaffine")
    parser.add_argument("--learn-rate", type=float, default=0.002)
    parser.add_argument("--vectors", help="a pipeline with word vectors (python -m examples.spacy.glove)")
    add_out(parser, "runs/spacy-dm")
    add_device(parser, "cpu")
    args = parser.parse_args(argv)
    use_device(args.device)
    paths = {
        f"paths.{part}": converted(SOURCE.format(part), args.out / f"{part}.spacy")
        for part in ("train", "dev")
    } | {"paths.vectors": args.vectors}
    scorer = {f"components.spigot_sdp.model.{name}": value for name, value in SCORERS[args.scorer].items()}
    started = time.process_time()
    if args.warm_steps:
        warm = _loss("local", args.warm_steps, args.learn_rate)
        train_from_scratch(CONFIGS / "dm.cfg", args.out / "warm", paths | scorer | warm)
        main_part = _loss(args.loss, args.steps - args.warm_steps, args.learn_rate)
        nlp = train_on(args.out / "warm" / "model-last", args.out, main_part)
    else:
        main_part = _loss(args.loss, args.steps, args.learn_rate)
        nlp = train_from_scratch(CONFIGS / "dm.cfg", args.out, paths | scorer | main_part)
    print(f"{time.process_time() - started:.0f} s of CPU time. Dev:")
    examples = list(create_corpus(args.out / "dev.spacy")(nlp))
    for example, doc in zip(examples, nlp.pipe([example.predicted for example in examples])):
        example.predicted = doc
    for name, tops in (("with tops", True), ("without tops", False)):
        scores = sdp_scores(examples, tops)
        print(f"  {name:12}", *(f"{key.upper()} {100 * scores[f'sdp_{key}']:.2f}" for key in GRAPH_KEYS))


def _loss(name: str, steps: int, rate: float) -> dict[str, Any]:
    """Settings for so many steps with a loss."""
    return {
        "components.spigot_sdp.loss": name,
        "training.max_steps": steps,
        "training.eval_frequency": max(steps // 4, 1),
        **learn_rate(rate, steps),
    }


if __name__ == "__main__":
    main()
