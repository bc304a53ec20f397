"""The commands that the README and the pages show exist, and so do their options."""

import importlib.util
import re
import runpy
import shlex
import warnings
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "examples/*/README.md")
    for path in ROOT.glob(pattern)
    if "_build" not in path.parts
)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
EXTRAS = set(
    re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
)
OTHERS = {"pip", "pytest", "sphinx"}
HELP: dict[str, str] = {}


def commands(page: Path) -> Iterator[list[str]]:
    """Words of every command in the page's blocks of code and between backticks."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\S*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    blocks = "".join(code for language, code in fenced if language in ("", "bash"))
    inline = "\n".join(re.findall(r"`((?:python -m|make|fairseq-[a-z]+ \w) ?[^`\n]+)`", text))
    for line in (blocks + inline).replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part.replace("...", ""), comments=True)
            yield list(dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))


def of(*programs: str) -> list:
    """All commands that start with one of the programs, by page."""
    found = [(page, words) for page in PAGES for words in commands(page) if words and words[0] in programs]
    assert found, programs
    return [pytest.param(words, id=f"{page.stem}: {' '.join(words)[:60]}") for page, words in found]


@pytest.mark.parametrize("words", of("make"))
def test_make_targets_and_variables(words):
    for word in words[1:]:
        name, is_variable, _ = word.partition("=")
        assert re.search(
            rf"^{name}( \?=|:)" if is_variable else rf"^{name}:", MAKEFILE, flags=re.MULTILINE
        ), word


@pytest.mark.parametrize("words", of("pip", "uv"))
def test_extras(words):
    asked = {
        extra for word in words for group in re.findall(r"\[([\w,]+)\]", word) for extra in group.split(",")
    }
    assert asked <= EXTRAS


@pytest.mark.parametrize("words", of("python", ".venv/bin/python"))
def test_modules_and_their_options(words, capsys, monkeypatch):
    if words[1] != "-m":
        assert (ROOT / words[1]).is_file()
        return
    module, arguments = words[2], words[3:]
    asked = [word.split("=")[0] for word in arguments if word.startswith("--")]
    if module in OTHERS:
        return
    if module == "spacy":
        sources = (path.read_text(encoding="utf-8") for path in (ROOT / "spacy_components/cli").glob("*.py"))
        known = "".join(sources)
        if not arguments or "-" not in arguments[0]:  # a command of spaCy's own
            return
        assert f'"{arguments[0]}"' in known
    else:
        assert importlib.util.find_spec(module), module
        known = help_of(module, monkeypatch, capsys) if asked else ""
    if module == "fairseq_plugins.train_beam":  # it hands on what it does not know
        options = pytest.importorskip("fairseq.options")
        known += options.get_training_parser().format_help()
        known += (ROOT / "docs/fairseq/options.md").read_text(encoding="utf-8")
    assert [option for option in asked if not re.search(rf"{option}\b", known)] == []


def help_of(module: str, monkeypatch, capsys) -> str:
    """What ``python -m module --help`` prints."""
    if module not in HELP:
        monkeypatch.setattr("sys.argv", [module, "--help"])
        with pytest.raises(SystemExit) as done, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        assert not done.value.code
        HELP[module] = capsys.readouterr().out
    return HELP[module]


@pytest.mark.parametrize(
    "words", of("fairseq-preprocess", "fairseq-train", "fairseq-generate", "fairseq-validate")
)
def test_fairseqs_options(words):
    options = pytest.importorskip("fairseq.options")
    from fairseq import utils

    parser = {
        "fairseq-preprocess": options.get_preprocessing_parser,
        "fairseq-train": options.get_training_parser,
        "fairseq-generate": options.get_generation_parser,
        "fairseq-validate": options.get_validation_parser,
    }[words[0]]()
    utils.import_user_module(type("Args", (), {"user_dir": str(ROOT / "fairseq_plugins")}))
    arguments = [word if word != "fairseq_plugins" else str(ROOT / word) for word in words[1:]]
    if words[0] == "fairseq-preprocess":
        _, unknown = parser.parse_known_args(arguments)
    else:
        _, unknown = options.parse_args_and_arch(parser, arguments, parse_known=True)
    assert not unknown
