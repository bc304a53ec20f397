"""Decoding a trained model with fairseq-generate, once per way of decoding; scores are kept on disk."""

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairseq_plugins.comparison.runs import TrainingRun
from fairseq_plugins.comparison.settings import write_atomically


@dataclass(frozen=True)
class Decoding:
    """A way of decoding.

    Attributes:
        key: name of the folder for its output.
        heading: what tables call it.
        options: of fairseq-generate.
    """

    key: str
    heading: str
    options: tuple[str, ...]


def decode(
    run: TrainingRun,
    decoding: Decoding,
    arguments: list[str],
    score_file: Callable[[Path], float] | None = None,
) -> float:
    """Score of the best checkpoint of ``run``, decoded once.

    Args:
        run: a finished run.
        decoding: how to decode; output lies in ``run.folder / decoding.key``.
        arguments: of fairseq-generate, for all decodings: data, task, ``--gen-subset``, ``--scoring``.
        score_file: gives the score of the file that fairseq-generate wrote; default: fairseq's own scorer.

    Returns:
        The score, in percent or BLEU.
    """
    folder = run.folder / decoding.key
    record = folder / "score.json"
    command = [*arguments, *decoding.options, "--path", str(run.best), "--results-path", str(folder)]
    if record.exists():
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["command"] == command:
            return known["score"]
    folder.mkdir(parents=True, exist_ok=True)
    score = _generate(command)
    if score_file is not None:
        score = score_file(next(folder.glob("generate-*.txt")))
    write_atomically(record, json.dumps({"score": score, "command": command}) + "\n")
    return score


def _generate(command: list[str]) -> float:
    """fairseq-generate in this process; the scorer's score."""
    from fairseq import options
    from fairseq_cli import generate as fairseq_generate

    # Otherwise the first call sends all later logging to its own results file, and closes it.
    logging.basicConfig(level=logging.WARNING)
    parser = options.get_generation_parser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fairseq's old ways of calling hydra and torch
        scorer = fairseq_generate.main(options.parse_args_and_arch(parser, command))
    return float(scorer.score())
