"""Train a semantic dependency parser on DM graphs.

In minutes, and full size::

    python -m examples.spacy.parse_dm
    python -m examples.spacy.parse_dm --steps 8000
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from examples.spacy._data import converted
from examples.spacy._training import CONFIGS, learn_rate, train_from_scratch
from spacy_components.training.corpus import create_corpus
from spacy_components.training.scorers import GRAPH_KEYS, sdp_scores

SOURCE = "sdp_dm_wescience/{}.sdp.gz"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.spacy.parse_dm", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--steps", type=int, default=800, help="steps of 1000 words")
    parser.add_argument("--loss", choices=("local", "likelihood", "hinge"), default="local")
    parser.add_argument("--learn-rate", type=float, default=0.002)
    parser.add_argument("--out", type=Path, default=Path("runs/spacy-dm"))
    args = parser.parse_args(argv)
    overrides = {
        **{
            f"paths.{part}": converted(SOURCE.format(part), args.out / f"{part}.spacy")
            for part in ("train", "dev")
        },
        **learn_rate(args.learn_rate, args.steps),
        "components.spigot_sdp.loss": args.loss,
        "training.max_steps": args.steps,
        "training.eval_frequency": max(args.steps // 4, 1),
    }
    started = time.process_time()
    nlp = train_from_scratch(CONFIGS / "dm.cfg", args.out, overrides)
    print(f"{time.process_time() - started:.0f} s of CPU time. Dev:")
    examples = list(create_corpus(args.out / "dev.spacy")(nlp))
    for example, doc in zip(examples, nlp.pipe([example.predicted for example in examples])):
        example.predicted = doc
    for name, tops in (("with tops", True), ("without tops", False)):
        scores = sdp_scores(examples, tops)
        print(f"  {name:12}", *(f"{key.upper()} {100 * scores[f'sdp_{key}']:.2f}" for key in GRAPH_KEYS))


if __name__ == "__main__":
    main()
