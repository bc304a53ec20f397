"""The tables of options in docs/ are those of the code."""

import dataclasses
import inspect
import json
import re
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest.importorskip("fairseq")

from fairseq_plugins.__main__ import markdown
from fairseq_plugins.options import rows

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = (ROOT / "docs/fairseq/options.md").read_text(encoding="utf-8")
REGISTERED = (ROOT / "docs/spacy/registered.md").read_text(encoding="utf-8")
TABLE = re.compile(r"<!-- options of (?P<module>[\w.]+):(?P<name>\w+) -->\n(?P<rows>(?:\|.*\n)+)")
TABLES = {match["name"]: match for match in TABLE.finditer(OPTIONS)}
SETTINGS_TABLE = re.compile(TABLE.pattern.replace("options of", "settings of"))
SETTINGS_TABLES = {match["name"]: match for match in SETTINGS_TABLE.finditer(REGISTERED)}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_table_is_the_configuration(name):
    """``python -m fairseq_plugins --markdown`` prints them."""
    match = TABLES[name]
    config = getattr(import_module(match["module"]), name)
    assert match["rows"] == markdown(config)


def own_fields(config) -> set[str]:
    """Fields of a configuration that fairseq does not have, without old names and those of other groups."""
    theirs = {field.name for base in config.__mro__[1:] for field in fairseq_fields(base)}
    return {
        field.name
        for field in dataclasses.fields(config)
        if field.name not in theirs
        and not field.name.startswith("_")
        and not str(field.default).startswith("${")
        and "new" not in field.metadata
    }


def fairseq_fields(base):
    ours = base.__module__.startswith("fairseq_plugins")
    return () if ours or not dataclasses.is_dataclass(base) else dataclasses.fields(base)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_field_has_a_meaning_and_a_source(name):
    config = getattr(import_module(TABLES[name]["module"]), name)
    shown = list(rows(config))
    assert own_fields(config) <= {row.name[2:].replace("-", "_") for row in shown}
    assert all(row.meaning.strip() and row.source.strip() for row in shown)


def test_every_configuration_has_its_table():
    assert set(TABLES) == {
        "SoftBeamConfig",
        "ScheduledSamplingConfig",
        "MinimumRiskConfig",
        "DirectLossTranslationConfig",
        "SequenceTaggingConfig",
        "FixedAttentionLSTMConfig",
        "FixedAttentionPretrainedConfig",
        "FixedAttentionTransformerConfig",
    }


def settings_of(function) -> dict[str, str]:
    """``{setting: default}`` of what spaCy makes from a config, as such a file writes them."""
    if dataclasses.is_dataclass(function):
        from spacy_components.settings import as_config, values_of

        return {name: _written(value) for name, value in as_config(values_of(function())).items()}
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    return {
        name: "null" if default is None else json.dumps(default)
        for name, default in defaults.items()
        if default is not inspect.Parameter.empty and name not in ("name", "scorer")
    }


def _written(default) -> str:
    """As a table writes it: of a block, its name."""
    block = default.get("@misc") if isinstance(default, dict) else None
    return block or ("null" if default is None else json.dumps(default))


@pytest.mark.parametrize("name", sorted(SETTINGS_TABLES))
def test_table_of_settings_is_that_of_spacys_config(name):
    pytest.importorskip("spacy")
    match = SETTINGS_TABLES[name]
    rows = [row.split("|")[1:-1] for row in match["rows"].splitlines()[2:]]
    table = {cells[0].strip().strip("`"): cells[1].strip().strip("`") for cells in rows}
    assert table == settings_of(getattr(import_module(match["module"]), name))
    assert all(cells[2].strip() for cells in rows), "a meaning for each"


def test_every_component_and_the_guard_have_their_tables():
    settings = {"SpigotParserSettings", "SpigotSdpSettings", "JointSdpSettings"}
    assert set(SETTINGS_TABLES) == {*settings, "create_guarded_logger"}


def rows_after(mark: str) -> list[list[str]]:
    """Cells of the table below a comment."""
    table = REGISTERED.split(f"<!-- {mark} -->\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]


def test_everything_registered_is_listed_with_its_settings():
    pytest.importorskip("spacy")
    groups = ("architectures", "misc", "scorers", "readers", "callbacks")
    ours = [
        entry
        for group in groups
        for entry in entry_points(group=f"spacy_{group}")
        if entry.value.startswith("spacy_components")
    ]
    expected = {
        entry.name: [
            name if p.default is p.empty else f"{name} = {json.dumps(p.default)}"
            for name, p in inspect.signature(entry.load()).parameters.items()
        ]
        for entry in ours
    }
    listed = {
        name.strip("`"): re.findall("`([^`]+)`", settings) for name, _, settings in rows_after("registered")
    }
    assert listed == expected
    explained = {name for names, _ in rows_after("meanings") for name in re.findall("`([^`]+)`", names)}
    assert explained == {setting.split(" = ")[0] for settings in expected.values() for setting in settings}


def test_every_estimator_and_surrogate_is_on_its_page():
    from diffdecode.categorical import ESTIMATORS
    from diffdecode.structure import SURROGATES

    modules = {estimator.function.__module__ for estimator in ESTIMATORS.values()}
    modules |= {surrogate.__module__ for surrogate in SURROGATES.values()}
    pages = "".join((ROOT / f"docs/api/{name}.md").read_text() for name in ("estimators", "surrogates"))
    assert {module for module in modules if f".. automodule:: {module}\n" not in pages} == set()
    guides = "".join((ROOT / f"docs/library/{name}.md").read_text() for name in ("estimators", "surrogates"))
    assert {name for name in (*ESTIMATORS, *SURROGATES) if f"`{name}`" not in guides} == set()


def test_every_room_is_explained():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    packages = ("diffdecode", "fairseq_compat", "fairseq_plugins", "spacy_components")
    rooms = [file.parent for package in packages for file in (ROOT / package).rglob("__init__.py")]
    assert [room.relative_to(ROOT) for room in rooms if f"{room.name}/`" not in design] == []
