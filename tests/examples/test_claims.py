"""Claims are held against records, seed by seed; the page in the docs is what the records say."""

import importlib
import re
from dataclasses import replace

import pytest

from examples._shared.records import Record, by_seed, typed
from examples.papers import report
from examples.papers.claims import CLAIMS, Claim

CLAIM = Claim("a paper", "mine is better", "an.experiment", ("mine", "theirs"), "loss", "a remark", "9, 10")


def record(mine, theirs, sign=-1):
    systems = {"mine": {"loss": by_seed(mine)}, "theirs": {"loss": by_seed(theirs)}}
    intervals = {"loss": {"theirs - mine": [-0.25 * sign, -0.5 * sign]}}
    return Record(
        "an.experiment",
        "python -m an.experiment",
        {"loss": sign},
        systems,
        {"mine": 3.0},
        intervals=intervals,
    )


@pytest.mark.parametrize(
    ("mine", "theirs", "sign", "verdict"),
    [
        ([1, 2, 3], [2, 3, 4], -1, "confirmed"),
        ([1, 2, 3], [2, 3, 4], 1, "not seen here"),
        ([1, 2, 9], [9, 9, 8], -1, "partly"),
        ([1, 9, 9], [9, 8, 8], -1, "not seen here"),
        ([1, 1, 1], [1, 1, 1], -1, "not seen here"),
        ([1, 2], [2, 3], -1, "too few seeds (for)"),
        ([3, 3], [2, 3], -1, "too few seeds (against)"),
        ([1, 2, 3], [], -1, "not run"),
    ],
)
def test_verdicts(mine, theirs, sign, verdict):
    assert CLAIM.verdict(record(mine, theirs, sign)) == verdict


def test_what_may_be_chance_is_not_seen():
    found = record([2, 3, 4], [1, 2, 3], 1)
    found = replace(found, intervals={"loss": {"mine - theirs": [-0.1, 2.1]}})
    assert CLAIM.verdict(found) == "not seen here"
    found = replace(found, intervals={"loss": {"mine - theirs": [0.1, 2.1]}})
    assert CLAIM.verdict(found) == "confirmed"


def test_only_seeds_of_both_are_compared():
    found = record([1, 2, 3], [2, 5, 9])
    del found.systems["theirs"]["loss"]["1"]
    assert found.differences("mine", "theirs", "loss") == [1, 6]
    assert CLAIM.verdict(None) == "not run"
    assert CLAIM.verdict(replace(found, systems={})) == "not run"


def test_a_page_from_records(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    record([1.0, 2.0, 3.0], [2.0, 3.0, 4.5]).leave(run)
    report.main([str(run), "--out", str(tmp_path)])
    assert (tmp_path / "records" / "experiment.json").exists()
    made = report.page([CLAIM], report.load(tmp_path / "records"))
    cells = ["mine is better", "9, 10", "**confirmed**", "+1.17 ± 0.29", "+0.25 to +0.50", "3", "3 of 3"]
    assert ["", *cells, "a remark", ""] in [re.split(r" *\| *", line) for line in made.splitlines()]
    assert "| `mine`   | 3     | 2.00 ± 1.00 | 3     |" in made
    (tmp_path / "records" / "experiment.json").write_text('{"a": 1}')
    with pytest.raises(SystemExit, match=r"report: .*experiment\.json is no record"):
        report.main(["--out", str(tmp_path)])


def test_commands_are_kept_without_the_folders_of_a_machine(tmp_path):
    words = ["--data", str(tmp_path), "--out", "x y", "--quick"]
    assert typed("a.b", words) == "python -m a.b --data DIR --quick"


def test_the_page_in_the_docs_is_what_the_records_say():
    made = report.page(CLAIMS, report.load(report.RESULTS / "records"))
    assert (report.RESULTS / "papers.md").read_text(encoding="utf-8") == made


def test_claims_name_what_is_there():
    """A misspelt system or measure would be "not run" for ever."""
    records = report.load(report.RESULTS / "records")
    for claim in CLAIMS:
        assert importlib.util.find_spec(claim.experiment), claim.experiment
        found = records.get(claim.experiment)
        if found:
            # A run may leave out one of the systems, or, say, an exponent.
            assert set(claim.systems) & set(found.systems), claim
            kind = claim.measure.partition(",")[0]
            assert any(measure.startswith(kind) for measure in found.measures), claim


@pytest.mark.parametrize("module", sorted({claim.experiment for claim in CLAIMS}))
def test_claims_are_about_what_is_declared(module):
    declared = getattr(importlib.import_module(module), "EXPERIMENT", None)
    if declared is None:
        pytest.skip("has its systems from the command line")
    columns = getattr(declared, "searches", None)
    headings = [search.heading for search in columns] if columns else declared.scores.values()
    for claim in (claim for claim in CLAIMS if claim.experiment == module):
        assert set(claim.systems) <= {system.name for system in declared.systems}, claim
        assert claim.measure in headings, claim
