"""The projects of weasel: its own loader takes them, and their commands and options exist."""

import shlex
import shutil
from pathlib import Path

import pytest
import typer
from spacy.cli._util import app
from weasel.util.config import load_project_config

import spacy_components.cli  # noqa: F401 - registers our commands beside spaCy's

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = sorted((ROOT / "examples").glob("*/project.yml"))
SPACY = typer.main.get_command(app)
SETTINGS = ("--paths.", "--training.", "--components.")
"""Options that spaCy's train takes as settings of the config."""


def loaded(path, folder):
    """The project in a folder of its own: the loader makes its directories."""
    shutil.copy(path, folder)
    return load_project_config(folder)


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_project_is_valid_and_its_commands_exist(path, tmp_path):
    project = loaded(path, tmp_path)
    made = {asset["dest"] for asset in project["assets"]}
    commands = {command["name"]: command for command in project["commands"]}
    assert project["workflows"]["all"] == list(commands)
    for command in commands.values():
        assert set(command.get("deps", ())) <= made, "a step needs what none before it has made"
        made |= set(command.get("outputs", ()))
        for line in command["script"]:
            python, module, spacy, name, *arguments = shlex.split(line)
            assert [python, module, spacy] == ["python", "-m", "spacy"] and "${" not in line
            own = [a for a in arguments if not a.startswith(SETTINGS)]
            SPACY.commands[name].make_context(name, list(own), resilient_parsing=True)
            options = {option for p in SPACY.commands[name].params for option in p.opts}
            assert {a for a in own if a.startswith("--")} <= options, line


def test_there_is_one_for_each_of_the_main_recipes():
    assert {path.parent.name for path in PROJECTS} == {"spacy_joint", "spacy_parser", "spacy_semantics"}
