"""Decoding a trained model with fairseq-generate, once per way of decoding; scores are kept on disk."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from diffdecode.files.atomic import read_json, write_json
from fairseq_plugins.comparison.report import Row
from fairseq_plugins.comparison.runs import TrainingRun, continued


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
        known = read_json(record)
        if known["command"] == command:
            return known["score"]
    folder.mkdir(parents=True, exist_ok=True)
    score = _generate(command)
    if score_file is not None:
        score = score_file(next(folder.glob("generate-*.txt")))
    write_json(record, {"score": score, "command": command})
    return score


def decoded_row(
    name: str,
    runs: Iterable[tuple[TrainingRun, TrainingRun]],
    decodings: Sequence[Decoding],
    arguments: list[str],
    console: Console,
    score_file: Callable[[Path], float] | None = None,
) -> Row:
    """The row of one way of training, its models decoded in every way.

    Args:
        name: what the table calls it.
        runs: for each seed, the finished run and the run that it continues (itself, if none).
        decodings: the columns.
        arguments: of fairseq-generate.
        console: shows what is being decoded.
        score_file: as for :func:`decode`.

    Raises:
        ValueError: a run has reported no validation.
    """
    row = Row(name)
    for run, first in runs:
        for decoding in decodings:
            with console.status(f"decoding: {name}, {decoding.heading}"):
                score = decode(run, decoding, arguments, score_file)
            row.scores.setdefault(decoding.heading, []).append(score)
        curve = run.curve()
        if not curve:
            raise ValueError(f"{run.log} reports no validation: remove {run.folder} to train it again")
        row.updates.append(curve[-1]["updates"])
        row.cpu_seconds.append(run.cpu_seconds())
        row.curves.append(curve if run is first else continued(first.curve(), curve))
        row.commands.append(run.command)
    return row


def _generate(command: list[str]) -> float:
    """fairseq-generate in this process; the scorer's score."""
    from fairseq import options
    from fairseq_cli import generate as fairseq_generate

    # Otherwise the first call sends all later logging to its own results file, and closes it.
    logging.basicConfig(level=logging.WARNING)
    parser = options.get_generation_parser()
    # Sentences are read by this process: to start and end another one takes longer than most decodings.
    arguments = options.parse_args_and_arch(parser, ["--num-workers", "0", *command])
    return float(fairseq_generate.main(arguments).score())
