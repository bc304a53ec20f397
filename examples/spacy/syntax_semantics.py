"""Syntax, then semantics: DM graphs on predicted trees, by equation 7 of Peng et al. (2018).

    python -m examples.spacy.syntax_semantics                                     # a part of the data
    python -m examples.spacy.syntax_semantics --parses 0 --graphs 0 --steps 8000  # all of it

At the end: scores of each system, then Table 3 of the paper, pipeline against SPIGOT, on the graphs' dev set.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from spacy.language import Language

from diffdecode.files.atomic import write_text
from examples._shared.commands import add_device, add_out, one_line_errors
from examples._shared.spacy_training import (
    PACKAGE_CONFIGS,
    converted,
    learn_rate,
    train_from_scratch,
    use_device,
)
from examples.spacy._configs import CONFIGS
from spacy_components.cli.compare_parses import compare, html_page, print_changes
from spacy_components.training.corpus import create_corpus

SYSTEMS = ("no syntax", "pipeline", "ste", "spigot")


@one_line_errors("syntax_semantics")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.spacy.syntax_semantics", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument(
        "--parses", type=int, default=3000, help="sentences of the treebank; 0 for all 12,544"
    )
    parser.add_argument("--graphs", type=int, default=2000, help="sentences with graphs; 0 for all 8,002")
    parser.add_argument("--steps", type=int, default=400, help="steps of 1000 words of both")
    parser.add_argument("--grad-factor", type=float, default=0.1)
    parser.add_argument("--learn-rate", type=float, default=0.002)
    add_out(parser, "runs/spacy-syntax-dm")
    add_device(parser, "cpu")
    args = parser.parse_args(argv)
    use_device(args.device)
    treebank, graphs = "ud_english_ewt/en_ewt-ud-{}.conllu.gz", "sdp_dm_wescience/{}.sdp.gz"
    files = {
        "parses": converted(treebank.format("train"), args.out / "parses.spacy"),
        "dev_parses": converted(treebank.format("dev"), args.out / "dev_parses.spacy"),
        "graphs": converted(graphs.format("train"), args.out / "graphs.spacy"),
        "dev_graphs": converted(graphs.format("dev"), args.out / "dev_graphs.spacy"),
    }
    table = Table("system", "DM UF", "DM LF", "UAS", "CPU s", title="DM and EWT, dev", title_justify="left")
    pipelines = {}
    for system in args.systems:
        started = time.process_time()
        nlp = pipelines[system] = train(system, args, files)
        spent = time.process_time() - started
        scores = {}
        for part in ("dev_graphs", "dev_parses"):
            found = nlp.evaluate(list(create_corpus(files[part])(nlp)))
            scores |= {key: value for key, value in found.items() if value is not None}
        cells = [
            f"{100 * scores[key]:.2f}" if key in scores else "" for key in ("sdp_uf", "sdp_lf", "dep_uas")
        ]
        table.add_row(system, *cells, f"{spent:.0f}")
    Console().print(table)
    if {"pipeline", "spigot"} <= set(pipelines):
        changes = compare(pipelines["pipeline"], pipelines["spigot"], Path(files["dev_graphs"]))
        print_changes(changes)
        page = args.out / "changed_trees.html"
        write_text(page, html_page(changes))
        print(f"Changed trees: {page}")


def train(system: str, args: argparse.Namespace, files: dict[str, str]) -> Language:
    """The best pipeline of a system."""
    overrides: dict[str, Any] = {
        **learn_rate(args.learn_rate, args.steps),
        "training.max_steps": args.steps,
        "training.eval_frequency": max(args.steps // 2, 1),
    }
    if system == "no syntax":  # half of the steps: the others spend about half of theirs on the treebank
        overrides |= {"paths.train": files["graphs"], "paths.dev": files["dev_graphs"]}
        overrides |= {"corpora.train.limit": args.graphs, **learn_rate(args.learn_rate, args.steps // 2)}
        overrides |= {"training.max_steps": args.steps // 2}
        return train_from_scratch(CONFIGS / "dm.cfg", args.out / "no-syntax", overrides)
    overrides |= {f"paths.{name}": path for name, path in files.items()}
    overrides |= {
        "corpora.train.corpora.parses.limit": args.parses,
        "corpora.train.corpora.graphs.limit": args.graphs,
        "components.spigot_parser.surrogate": system,
        "components.spigot_parser.grad_factor": args.grad_factor,
        "components.spigot_parser.multi_root": False,
        "components.spigot_sdp.loss": "local",
    }
    return train_from_scratch(PACKAGE_CONFIGS / "syntax_sdp.cfg", args.out / system, overrides)


if __name__ == "__main__":
    main()
