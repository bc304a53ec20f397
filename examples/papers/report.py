"""The page of claims, made from the records of the experiments.

    python -m examples.papers.report                     # docs/results/papers.md, anew
    python -m examples.papers.report runs/estimators/vae # first takes the record of a finished run

Records lie in ``docs/results/records/``, one an experiment; no figure of the page has another source.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from diffdecode.files.atomic import write_text
from examples._shared.commands import one_line_errors
from examples._shared.records import Record
from examples._shared.tables import markdown_table, spread
from examples.papers.claims import CLAIMS, ENOUGH, Claim

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
HEAD = f"""# Claims of the papers

*Confirmed*: better with each of at least {ENOUGH} seeds, paired. *Partly*: better on average and
with most seeds. *Not seen here*: neither, or the interval holds 0. With fewer seeds the direction is told and
nothing else. All runs are small, most of them smaller than the paper's; the difference is in favour of the
system that the claim says is better, and *paper* has the paper's figures of the two. *95 %*: of a paired
bootstrap over the sentences, where there are sentences. This page is made by
`python -m examples.papers.report` from the records of the commands named in it.
"""
HEADER = ("claim", "paper", "verdict", "difference", "95 %", "seeds", "better in", "remark")


def load(folder: Path) -> dict[str, Record]:
    """The records of a folder by experiment."""
    records = [Record.load(path) for path in sorted(folder.glob("*.json"))]
    return {record.experiment: record for record in records}


def row(claim: Claim, record: Record | None) -> list[str]:
    """A line of the table."""
    found = record.differences(*claim.systems, claim.measure) if record else []
    if not found:
        return [claim.text, claim.figures, claim.verdict(record), *[""] * (len(HEADER) - 3)]
    better = f"{sum(one > 0 for one in found)} of {len(found)}"
    shown = spread(found, digits(found))
    shown = shown if shown.startswith("-") else f"+{shown}"
    verdict = f"**{claim.verdict(record)}**"
    ends = record.interval(*claim.systems, claim.measure) if record else []
    interval = " to ".join(f"{end:+.2f}" for end in ends)
    return [claim.text, claim.figures, verdict, shown, interval, str(len(found)), better, claim.remark]


def digits(values: Sequence[float]) -> int:
    """As many as show the mean, or the spread if that is larger, to two figures; at least two."""
    size = max(abs(statistics.mean(values)), statistics.stdev(values) if len(values) > 1 else 0)
    count = 2
    while 0 < size * 10**count < 10 and count < 6:
        count += 1
    return count


def systems_table(record: Record) -> str:
    """All systems of an experiment with mean and deviation of each measure."""
    header = ["system", "seeds", *record.measures, "CPU s"]
    rows = []
    for name, values in record.systems.items():
        known = [list(values.get(measure, {}).values()) for measure in record.measures]
        cells = [spread(one, max(2, digits(one))) if one else "" for one in known]
        seconds = record.seconds.get(name)
        rows.append(
            [f"`{name}`", str(max(map(len, known))), *cells, "" if seconds is None else f"{seconds:.0f}"]
        )
    return markdown_table(header, rows)


def page(claims: Sequence[Claim], records: dict[str, Record]) -> str:
    """The whole page."""
    parts = [HEAD]
    for paper in dict.fromkeys(claim.paper for claim in claims):
        rows = [row(claim, records.get(claim.experiment)) for claim in claims if claim.paper == paper]
        parts += [f"## {paper}\n", markdown_table(HEADER, rows) + "\n"]
    parts.append("## What was measured\n")
    for record in records.values():
        parts.append(f"`{record.command}`: {record.date}, {record.machine}.\n")
        parts.append(systems_table(record) + "\n")
    missing = dict.fromkeys(claim.experiment for claim in claims if claim.experiment not in records)
    if missing:
        parts.append("## What was not run\n")
        parts.append("\n".join(f"- `python -m {experiment}`" for experiment in missing) + "\n")
    return "\n".join(parts)


@one_line_errors("report")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.papers.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", type=Path, help="folders with a record.json to take in first")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the page and of records/")
    args = parser.parse_args(argv)
    for folder in args.runs:
        text = (folder / "record.json").read_text(encoding="utf-8")
        name = Record.load(folder / "record.json").experiment.rpartition(".")[2]
        (args.out / "records").mkdir(parents=True, exist_ok=True)
        write_text(args.out / "records" / f"{name}.json", text)
    write_text(args.out / "papers.md", page(CLAIMS, load(args.out / "records")))
    print(f"wrote {args.out / 'papers.md'}")


if __name__ == "__main__":
    main()
