"""``python -m spacy evaluate-sdp``: precision, recall, F1 and exact match of semantic graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import spacy
from spacy.cli._util import Arg, Opt, app, setup_gpu
from spacy.training import Example
from wasabi import msg

from diffdecode.files.atomic import write_json
from spacy_components.cli.bad_input import load_pipeline, one_line_errors
from spacy_components.sdp_graph import has_graph
from spacy_components.training.corpus import make_example
from spacy_components.training.formats import read_docs
from spacy_components.training.scorers import GRAPH_KEYS, sdp_scores


@app.command("evaluate-sdp")
def evaluate_sdp_cli(
    gold: Annotated[Path, Arg(help="Gold graphs: .spacy, .sdp, or .conllu (enhanced)", exists=True)],
    system: Annotated[
        Path, Arg(help="Predicted graphs in such a file, or the folder of a pipeline", exists=True)
    ],
    output: Annotated[
        Path | None, Opt("--output", "-o", help="Write the scores to this JSON file, too")
    ] = None,
    lang: Annotated[
        str, Opt("--lang", "-l", help="Language code of the vocabulary, if system is a file")
    ] = "en",
    use_gpu: Annotated[int, Opt("--gpu-id", "-g", help="GPU for the pipeline, or -1 for the CPU")] = -1,
) -> None:
    """Score graphs as SDP 2015 does: labelled and unlabelled, with tops and without."""
    setup_gpu(use_gpu)
    with one_line_errors("Cannot evaluate"):
        scores = evaluate(gold, system, lang)
        if output is not None:
            write_json(output, scores)
    header = ("", *(key.upper() for key in GRAPH_KEYS))
    rows = [
        (name, *(f"{100 * score[f'sdp_{key}']:.2f}" for key in GRAPH_KEYS)) for name, score in scores.items()
    ]
    msg.table(rows, header=header, divider=True, aligns=("l", *"r" * len(GRAPH_KEYS)))
    if output is not None:
        msg.good(f"Scores written to {output}")


def evaluate(gold: Path, system: Path, lang: str = "en") -> dict[str, dict[str, Any]]:
    """Scores ``with tops`` and ``without tops``; ``system`` is a file of documents or a pipeline's folder.

    Raises ValueError for bad input, if one of the two has no graph at all, or if the two files do not have
    the same sentences.
    """
    examples = _run_pipeline(gold, system) if system.is_dir() else _read_pairs(gold, system, lang)
    scores = {
        name: sdp_scores(examples, tops) for name, tops in (("with tops", True), ("without tops", False))
    }
    if scores["with tops"]["sdp_lf"] is None:
        raise ValueError(f"{gold}: no document has a graph")
    if not any(has_graph(example.predicted) for example in examples):
        raise ValueError(f"{system} gives no document a graph")
    return scores


def _run_pipeline(gold: Path, folder: Path) -> list[Example]:
    nlp = load_pipeline(folder)
    examples = [make_example(nlp, reference, gold_tokens=True) for reference in _read(gold, nlp.vocab)]
    docs = nlp.pipe(example.predicted for example in examples)
    return [Example(doc, example.reference) for doc, example in zip(docs, examples)]


def _read_pairs(gold: Path, system: Path, lang: str) -> list[Example]:
    vocab = spacy.blank(lang).vocab
    references, predictions = list(_read(gold, vocab)), list(_read(system, vocab))
    if len(references) != len(predictions):
        raise ValueError(f"{gold} has {len(references)} sentences and {system} has {len(predictions)}")
    for number, (reference, predicted) in enumerate(zip(references, predictions), start=1):
        if [t.text for t in reference] != [t.text for t in predicted]:
            raise ValueError(
                f"sentence {number}: {reference.text!r:.60} in {gold}, {predicted.text!r:.60} in {system}"
            )
    return [Example(predicted, reference) for reference, predicted in zip(references, predictions)]


def _read(path: Path, vocab: spacy.vocab.Vocab) -> list[spacy.tokens.Doc]:
    return [doc for doc in read_docs(path, vocab, graph=True) if len(doc)]
