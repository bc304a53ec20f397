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
from spacy_components.sdp_graph import DEFAULT_KEY, has_graph, make_key
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
    key: Annotated[str, Opt("--key", help="Which graphs: doc._.KEY")] = DEFAULT_KEY,
) -> None:
    """Score graphs as SDP 2015 does: labelled and unlabelled, with tops and without."""
    setup_gpu(use_gpu)
    with one_line_errors("Cannot evaluate"):
        scores = evaluate(gold, system, lang, key)
        if output is not None:
            write_json(output, scores)
    header = ("", *(name.upper() for name in GRAPH_KEYS))
    rows = [
        (tops, *(f"{100 * score[f'{key}_{name}']:.2f}" for name in GRAPH_KEYS))
        for tops, score in scores.items()
    ]
    msg.table(rows, header=header, divider=True, aligns=("l", *"r" * len(GRAPH_KEYS)))
    if output is not None:
        msg.good(f"Scores written to {output}")


def evaluate(gold: Path, system: Path, lang: str = "en", key: str = DEFAULT_KEY) -> dict[str, dict[str, Any]]:
    """Scores ``with tops`` and ``without tops``; ``system`` is a file of documents or a pipeline's folder.

    Args:
        key: of the graphs, in both.

    Raises:
        ValueError: bad input, if one of the two has no graph at all, or if the two files do not have the
            same sentences.
    """
    key = make_key(key)
    examples = _run_pipeline(gold, system, key) if system.is_dir() else _read_pairs(gold, system, lang, key)
    variants = {"with tops": True, "without tops": False}
    scores = {name: sdp_scores(examples, tops, key) for name, tops in variants.items()}
    if scores["with tops"][f"{key}_lf"] is None:
        raise ValueError(f"{gold}: no document has a graph in doc._.{key}")
    if not any(has_graph(example.predicted, key) for example in examples):
        raise ValueError(f"{system} gives no document a graph in doc._.{key}")
    return scores


def _run_pipeline(gold: Path, folder: Path, key: str) -> list[Example]:
    nlp = load_pipeline(folder)
    examples = [make_example(nlp, reference, gold_tokens=True) for reference in _read(gold, nlp.vocab, key)]
    docs = nlp.pipe(example.predicted for example in examples)
    return [Example(doc, example.reference) for doc, example in zip(docs, examples)]


def _read_pairs(gold: Path, system: Path, lang: str, key: str) -> list[Example]:
    vocab = spacy.blank(lang).vocab
    references, predictions = _read(gold, vocab, key), _read(system, vocab, key)
    if len(references) != len(predictions):
        raise ValueError(f"{gold} has {len(references)} sentences and {system} has {len(predictions)}")
    for number, (reference, predicted) in enumerate(zip(references, predictions), start=1):
        if [t.text for t in reference] != [t.text for t in predicted]:
            raise ValueError(
                f"sentence {number}: {reference.text!r:.60} in {gold}, {predicted.text!r:.60} in {system}"
            )
    return [Example(predicted, reference) for reference, predicted in zip(references, predictions)]


def _read(path: Path, vocab: spacy.vocab.Vocab, key: str) -> list[spacy.tokens.Doc]:
    return [doc for doc in read_docs(path, vocab, graph=True, key=key) if len(doc)]
