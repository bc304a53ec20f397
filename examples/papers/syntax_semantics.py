"""Syntax, then semantics (Peng et al. 2018, Table 1), and what that did to syntax (Table 3, section 5).

    python -m examples.papers.syntax_semantics --data DIR                  # 2,000 steps, 3 seeds: hours
    python -m examples.papers.syntax_semantics --data DIR --steps 400 --parses 3000 --graphs 2000
    python -m examples.papers.syntax_semantics --quick                     # a generated language

DM graphs over predicted trees, by equation 7; parser and semantic parser are trained from scratch, jointly,
on texts of their own. ``DIR`` has ``ud_english_ewt`` and ``sdp_dm_wescience``. At the end ``syntax.md`` has
Table 3 for each system against the pipeline, on DM's dev set, and ``changed_trees-*.html`` draws the trees.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from spacy import util
from spacy.training import Example

from diffdecode.files.atomic import write_text
from examples._shared.data import file_in
from examples._shared.spacy_training import PACKAGE_CONFIGS
from examples._shared.tables import save_table
from examples._shared.toy_corpus import corpus, with_graph
from examples.papers._spacy import (
    Comparison,
    Experiment,
    Overrides,
    System,
    generated_sizes,
    made_once,
    save_docs,
    split_aside,
    words_in,
)
from spacy_components.cli.compare_parses import compare, html_page
from spacy_components.cli.convert_sdp import convert
from spacy_components.sdp_graph import get_graph
from spacy_components.training.graph_scores import graph_edges
from spacy_components.training.parse_changes import CASES

NAME, CONFIG = "examples.papers.syntax_semantics", PACKAGE_CONFIGS / "syntax_sdp.cfg"
TREEBANK, GRAPHS = "ud_english_ewt/en_ewt-ud-{}.conllu.gz", "sdp_dm_wescience/{}.sdp.gz"
NO_SYNTAX, PIPELINE, ATTENTION = "no syntax", "pipeline", "structured attention"
SURROGATE = "components.spigot_parser.surrogate"


def files(args: argparse.Namespace) -> dict[str, str]:
    """Trees and graphs to train on, graphs kept aside, and both of dev; made if they are not there."""
    names = ("parses", "graphs", "aside", "dev_graphs", "dev_parses")
    return made_once(args, names, _generated, _converted)


def _converted(args: argparse.Namespace, found: dict[str, Path]) -> None:
    whole = args.out / "data" / "whole.spacy"
    convert(file_in(args.data, GRAPHS.format("train")), whole)
    split_aside(whole, found["graphs"], found["aside"], args.graphs)
    convert(file_in(args.data, GRAPHS.format("dev")), found["dev_graphs"])
    convert(file_in(args.data, TREEBANK.format("train")), found["parses"], limit=args.parses)
    convert(file_in(args.data, TREEBANK.format("dev")), found["dev_parses"])


def _generated(found: dict[str, Path]) -> None:
    vocab = spacy.blank("en").vocab
    for name, path, size, seed in generated_sizes(found):
        trees = corpus(vocab, size, seed, trees=True, classes=False)
        save_docs(path, trees if "parses" in name else (with_graph(tree, "sdp", far=True) for tree in trees))


def common(args: argparse.Namespace, files: dict[str, str]) -> Overrides:
    """Sizes and data of all systems."""
    return {
        "paths.parses": files["parses"],
        "paths.graphs": files["graphs"],
        "paths.dev_parses": files["dev_parses"],
        "paths.dev_graphs": files["aside"],
        "paths.vectors": args.vectors,
        "corpora.dev.fractions": {"parses": 0.0, "graphs": 1.0},
        "training.batcher.size": args.words,
        "components.spigot_parser.multi_root": False,
        "components.spigot_sdp.loss": "local",
    }


def without_syntax() -> dict[str, Any]:
    """The semantic parser alone."""
    tok2vec = util.load_config(CONFIG, interpolate=False)["components"]["spigot_sdp"]["model"]["tok2vec"]
    return {
        "nlp.pipeline": ["spigot_sdp"],
        "components.spigot_sdp.model.tok2vec": tok2vec["tok2vec"],
        "corpora.train.fractions": {"parses": 0.0, "graphs": 1.0},
    }


def attention() -> dict[str, Any]:
    """The semantic parser reads the probabilities of arcs, and no trees; the parser learns those."""
    layer = "components.spigot_sdp.model.tok2vec"
    return {
        "components.spigot_parser.loss": "likelihood",
        f"{layer}.@architectures": "diffdecode.SoftHeadConcat.v1",
        f"{layer}.parse.@architectures": "diffdecode.SoftParseListener.v1",
    }


def share(files: dict[str, str]) -> float:
    """Of words with graphs; the others are those of the treebank."""
    graphs, parses = words_in(files["graphs"]), words_in(files["parses"])
    return graphs / (graphs + parses)


def counts(example: Example) -> tuple[int, ...]:
    """Labelled edges and tops of one sentence: gold, predicted, both."""
    gold, found = (get_graph(doc, "sdp") for doc in (example.reference, example.predicted))
    right = graph_edges(gold) if gold else set()
    written = graph_edges(found) if found else set()
    return len(right), len(written), len(right & written)


def f1(counts: np.ndarray) -> np.ndarray:
    """In percent, of sums of counts ``[..., 3]``."""
    return 200 * counts[..., 2] / np.maximum(counts[..., 0] + counts[..., 1], 1)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes."""
    add = parser.add_argument
    add("--parses", type=int, default=0, help="sentences of the treebank; 0 for all 12,544")
    add("--graphs", type=int, default=0, help="sentences with graphs; 0 for all 8,002")
    add("--steps", type=int, default=2000, help="of the joint training")
    add("--words", type=int, default=1000, help="of both texts in a step")
    add("--vectors", help="a pipeline with word vectors (python -m examples.spacy.glove)")


def quick(args: argparse.Namespace) -> None:
    """Small."""
    args.steps, args.words = min(args.steps, 8), 200


EXPERIMENT = Experiment(
    module=NAME,
    about=__doc__ or "",
    config=CONFIG,
    systems=(
        System(NO_SYNTAX, without_syntax(), sends=False, alone=True),
        System(PIPELINE, {SURROGATE: "pipeline"}, sends=False),
        System(ATTENTION, attention()),
        *(System(name, {SURROGATE: name}) for name in ("ste", "spigot", "spigot_exact", "structured_st")),
    ),
    component="spigot_parser",
    files=files,
    common=common,
    share=share,
    dev=("dev_graphs", "dev_parses"),
    scores={"sdp_lf": "DM LF", "dep_uas": "UAS", "sdp_uf": "DM UF"},
    aside="sdp_lf",
    counts=counts,
    score=f1,
    pairs=(
        (PIPELINE, NO_SYNTAX),
        (ATTENTION, PIPELINE),
        ("spigot", PIPELINE),
        ("spigot", "ste"),
        ("spigot", ATTENTION),
        ("spigot_exact", "spigot"),
        ("structured_st", PIPELINE),
        ("structured_st", "spigot"),
    ),
    add_options=add_options,
    quick=quick,
    quick_systems=(NO_SYNTAX, PIPELINE, ATTENTION, "structured_st"),
    paper={
        NO_SYNTAX: {"DM LF": 89.4},
        PIPELINE: {"DM LF": 90.8, "DM UF": 91.8, "UAS": 92.9},
        ATTENTION: {"DM LF": 90.6, "DM UF": 91.6},
        "ste": {"DM LF": 91.1, "DM UF": 92.0, "UAS": 91.8},
        "spigot": {"DM LF": 91.6, "DM UF": 92.4, "UAS": 92.5},
    },
    paper_data="SemEval 2015's DM, test in domain (UAS: dev), with PTB's trees",
)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    how_syntax_changed(EXPERIMENT.main_program(argv))


def how_syntax_changed(comparison: Comparison) -> None:
    """Table 3, of the first seed: sentences whose trees stayed as the pipeline's, and the others."""
    if PIPELINE not in comparison.results:
        return
    before, dev = comparison.pipeline(PIPELINE), Path(comparison.files["dev_graphs"])
    rows = []
    for system in comparison.args.systems:
        if not system.sends:
            continue
        changes = compare(before, comparison.pipeline(system.name), dev)
        shares = changes.case_shares() or {}
        cases = [f"{100 * shares[case]:.1f}" if case in shares else "" for case in CASES]
        for row in changes.rows():
            if row["system"] == "after":
                row["system"] = system.name
            scored = f"{100 * row['lf']:.2f}" if "lf" in row else ""
            rows.append([system.name, str(row["split"]), str(row["sentences"]), str(row["system"]), scored])
            rows[-1] += cases
        write_text(comparison.args.out / f"changed_trees-{system.file_name}.html", html_page(changes))
    caption = (
        "Trees that differ from the pipeline's, DM dev; a, b, c: shares of changed heads in percent. "
        + (" ".join(f"{case}: {text}." for case, text in CASES.items()))
    )
    header = ["system", "split", "sentences", "trees of", "DM LF", *CASES]
    save_table(comparison.args.out / "syntax.md", caption, header, rows)


if __name__ == "__main__":
    main()
