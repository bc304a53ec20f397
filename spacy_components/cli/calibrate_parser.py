"""``python -m spacy calibrate-parser``: is a parser right as often as it says, and with which temperature?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from spacy.cli._util import Arg, Opt, app, setup_gpu
from spacy.language import Language
from spacy.training import Example
from spacy.util import minibatch
from wasabi import msg

from diffdecode.files.atomic import atomic_folder, atomic_write, write_json
from diffdecode.files.text import FormatError
from spacy_components.cli.bad_input import load_pipeline, one_line_errors
from spacy_components.confidence.calibration import Calibration, fit_temperature, reliability
from spacy_components.confidence.temperature import Tempered
from spacy_components.training.corpus import make_example
from spacy_components.training.formats import read_docs

DOCS_AT_ONCE = 128


@app.command("calibrate-parser")
def calibrate_parser_cli(
    pipeline: Annotated[str, Arg(help="Pipeline with the parser: the name of a package, or a folder")],
    data: Annotated[Path, Arg(help="Annotated data: .spacy, .conllu or .sdp (.gz too)", exists=True)],
    fit: Annotated[
        Path | None,
        Opt("--fit", help="Fit the temperature on these annotated data; data is then measured with it, too"),
    ] = None,
    to: Annotated[Path | None, Opt("--to", help="Write the pipeline with the temperature here")] = None,
    name: Annotated[str | None, Opt("--pipe", help="The component, if several could be meant")] = None,
    bins: Annotated[int, Opt("--bins", min=1, help="Bins of the reliability table")] = 10,
    output: Annotated[Path | None, Opt("--output", "-o", help="Write everything to this JSON file")] = None,
    plot: Annotated[Path | None, Opt("--plot", help="Draw accuracy by probability in this PNG file")] = None,
    use_gpu: Annotated[int, Opt("--gpu-id", "-g", help="GPU, or -1 for the CPU")] = -1,
) -> None:
    """Measure, and improve by temperature scaling, how far a parser's probabilities can be trusted."""
    setup_gpu(use_gpu)
    with one_line_errors("Cannot calibrate"):
        if to is not None and fit is None:
            raise ValueError("--to writes a pipeline with a fitted temperature: say with --fit on which data")
        if to is not None and to.exists() and not (to / "config.cfg").exists():
            raise ValueError(f"--to {to} is there already, and no pipeline that could be replaced")
        nlp = load_pipeline(pipeline)
        reports = calibrate(nlp, data, fit, name, bins)
        if output is not None:
            about = {"pipeline": str(pipeline), "data": str(data), "fit": None if fit is None else str(fit)}
            write_json(output, about | {"reports": [{**r, "table": r["table"].as_dict()} for r in reports]})
        if plot is not None:
            draw(reports, plot)
        if to is not None:
            with atomic_folder(to) as folder:
                nlp.to_disk(folder)
    for report in reports:
        print_report(report)
    for path in (output, plot, to):
        if path is not None:
            msg.good(f"Written: {path}")


def calibrate(
    nlp: Language, data: Path, fit: Path | None = None, name: str | None = None, bins: int = 10
) -> list[dict[str, Any]]:
    """Measures the component on data; with ``fit``, also after its temperature was fitted, which it keeps.

    Returns:
        one or two reports with ``temperature``, ``surprise`` (the negative log-likelihood of a document, in
        nats) and ``table``, a :class:`~spacy_components.confidence.calibration.Calibration`.

    Raises:
        ValueError: bad input, no such component, or no annotation to compare with.
    """
    pipe = find_pipe(nlp, name)
    reports = [measure(nlp, pipe, data, bins)]
    if fit is not None:
        surprises = [pipe.surprise(*batch) for batch in scored(nlp, pipe, fit)]
        pipe.temperature = fit_temperature(lambda temperature: sum(at(temperature) for at in surprises))
        reports.append(measure(nlp, pipe, data, bins))
    return reports


def find_pipe(nlp: Language, name: str | None) -> Any:
    """The component that makes probabilities; raises ValueError where it is not clear which."""
    found = {pipe_name: pipe for pipe_name, pipe in nlp.pipeline if isinstance(pipe, Tempered)}
    if name in found or (len(found) == 1 and name is None):
        return found[name or next(iter(found))]
    if not found:
        raise ValueError(f"no component has probabilities; the pipeline is {', '.join(nlp.pipe_names)}")
    wrong = "several components have" if name is None else f"'{name}' is none of the components that have"
    raise ValueError(f"{wrong} probabilities: say --pipe with one of {', '.join(found)}")


def measure(nlp: Language, pipe: Any, data: Path, bins: int) -> dict[str, Any]:
    """The component on annotated data, with the temperature that it has."""
    probabilities, right, surprise, documents = [], [], 0.0, 0
    for examples, scores in scored(nlp, pipe, data):
        of_batch, is_right = pipe.verdicts(examples, scores)
        probabilities.append(of_batch)
        right.append(is_right)
        surprise += pipe.surprise(examples, scores)(pipe.temperature)
        documents += len(examples)
    if not sum(map(len, right)):
        raise FormatError(data, None, f"no annotation that '{pipe.name}' could be compared with")
    table = reliability(np.concatenate(probabilities), np.concatenate(right), bins)
    return {"temperature": pipe.temperature, "surprise": surprise / documents, "table": table}


def scored(nlp: Language, pipe: Any, path: Path) -> Iterator[tuple[list[Example], Any]]:
    """Batches of examples, whose documents went through the components before this one, and its scores."""
    documents = read_docs(path, nlp.vocab, **pipe.annotation)
    examples = [make_example(nlp, doc, gold_tokens=True) for doc in documents if len(doc)]
    if not examples:
        raise FormatError(path, None, "no documents")
    docs = (example.predicted for example in examples)
    for _, before in nlp.pipeline:
        if before is pipe:
            break
        docs = before.pipe(docs, batch_size=DOCS_AT_ONCE) if hasattr(before, "pipe") else map(before, docs)
    pairs = (Example(doc, example.reference) for doc, example in zip(docs, examples))
    for batch in minibatch(pairs, DOCS_AT_ONCE):
        yield batch, pipe.model.predict([example.predicted for example in batch])


def print_report(report: dict[str, Any]) -> None:
    """Prints the table and what follows from it."""
    table: Calibration = report["table"]
    msg.divider(f"Temperature {report['temperature']:.3f}")
    rows = [
        (f"{b.low:.2f} to {b.high:.2f}", b.count, *(_percent(x) for x in (b.confidence, b.accuracy)))
        for b in table.bins
    ]
    total = ("all", table.count, _percent(table.confidence), _percent(table.accuracy))
    header = ("Probability", "Decisions", "Mean prob.", "Right")
    msg.table([*rows, total], header=header, divider=True, aligns=("l", "r", "r", "r"))
    msg.text(
        f"expected calibration error {_percent(table.error)}, largest {_percent(table.largest_error)}; "
        f"surprise {report['surprise']:.3f} nats a document"
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def draw(reports: list[dict[str, Any]], path: Path) -> None:
    """Writes a PNG: share of right decisions by their mean probability, a line a report."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 5), constrained_layout=True)
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":", label="as often right as it says")
    for report in reports:
        table: Calibration = report["table"]
        points = [(b.confidence, b.accuracy) for b in table.bins if b.count]
        label = f"temperature {report['temperature']:.2f}: error {_percent(table.error)} %"
        axes.plot(*zip(*points), marker="o", label=label)
    axes.set(xlabel="probability", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    pyplot.close(figure)
