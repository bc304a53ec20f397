"""Sentiment with semantic dependency features, as in Table 2 of Peng et al. (2018): four ways to train them.

First the parser is pre-trained, as in the paper; then each system is trained on a part of the reviews (on all
of them with --reviews 0 --steps 2000)::

    python -m examples.spacy.parse_dm
    python -m examples.spacy.classify_sst
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from spacy import util

from examples._shared.commands import add_device, add_out, one_line_errors
from examples._shared.spacy_training import converted, train_from_scratch, use_device, whole_pipeline
from examples.spacy._configs import CONFIGS
from spacy_components.training.corpus import create_corpus

SYSTEMS = ("bilstm", "pipeline", "ste", "spigot")


@one_line_errors("classify_sst")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.spacy.classify_sst", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--parser", type=Path, default=Path("runs/spacy-dm/model-best"))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--reviews", type=int, default=3000, help="reviews to train on; 0 for all 6,920")
    parser.add_argument("--steps", type=int, default=240, help="steps of 1000 words")
    parser.add_argument("--grad-factor", type=float, default=0.1)
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    add_out(parser, "runs/spacy-sst")
    add_device(parser, "cpu")
    args = parser.parse_args(argv)
    use_device(args.device)
    if not args.parser.is_dir():
        parser.error(f"no parser in {args.parser}: run python -m examples.spacy.parse_dm first")
    whole_pipeline(args.parser)
    dm = args.parser.parent
    overrides: dict[str, Any] = {
        "paths.graphs": converted("sdp_dm_wescience/train.sdp.gz", dm / "train.spacy"),
        "paths.reviews": converted("sst_binary/train.tsv", args.out / "train.spacy"),
        "paths.dev": converted("sst_binary/dev.tsv", args.out / "dev.spacy"),
        "corpora.train.corpora.reviews.limit": args.reviews,
        "corpora.train.corpora.reviews.shuffle": False,
        "components.spigot_sdp.eta": args.eta,
        "system.seed": args.seed,
        "training.max_steps": args.steps,
        "training.eval_frequency": max(args.steps // 4, 1),
    }
    table = Table("system", "accuracy", "DM LF after", "CPU s", title="SST, dev", title_justify="left")
    for system in args.systems:
        started = time.process_time()
        settings = overrides | _system(system, args)
        nlp = train_from_scratch(CONFIGS / "sst.cfg", args.out / system, settings, _start(system, args))
        seconds = time.process_time() - started
        accuracy = nlp.evaluate(list(create_corpus(args.out / "dev.spacy")(nlp)))["cats_acc"]
        graphs = nlp.evaluate(list(create_corpus(dm / "dev.spacy")(nlp))).get("sdp_lf")
        after = "" if graphs is None else f"{100 * graphs:.2f}"
        table.add_row(system, f"{100 * accuracy:.2f}", after, f"{seconds:.0f}")
    Console().print(table)


def _system(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """What is special about a system; the plain BiLSTM stands where the others join it with graphs."""
    if name == "bilstm":
        tok2vec = util.load_config(CONFIGS / "sst.cfg")["components"]["textcat"]["model"]["tok2vec"]
        bilstm = tok2vec["embed"]["tok2vec"]
        steps = args.steps * 2 // 3  # the others spend about a third of theirs on graphs
        return {
            "nlp.pipeline": ["textcat"],
            "components.textcat.model.tok2vec.embed": bilstm,
            "components.textcat.model.tok2vec.encode.width": bilstm["encode"]["width"],
            "corpora.train.fractions.graphs": 0.0,
            "training.max_steps": steps,
            "training.eval_frequency": max(steps // 4, 1),
        }
    return {"components.spigot_sdp.surrogate": name, "components.spigot_sdp.grad_factor": args.grad_factor}


def _start(name: str, args: argparse.Namespace) -> dict[str, Path]:
    return {} if name == "bilstm" else {"spigot_sdp": args.parser}


if __name__ == "__main__":
    main()
