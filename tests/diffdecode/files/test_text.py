"""The one way in which text files are opened: against the definition, on damaged files, and its price."""

import ast
import gzip
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from damaged_files import damaged
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdecode.files.text import FormatError, blocks, numbered_lines, spaced_words

LINES = ["one", "", "zwei\u00a0drei", "\u2028 \x85", "  ", "four"]


def written(folder, content, name="a.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_spellings_of_the_same_lines(tmp_path, name, end, mark):
    content = (mark + end.join(LINES) + end).encode()
    path = written(tmp_path, gzip.compress(content, mtime=0) if name.endswith("gz") else content, name)
    assert list(numbered_lines(path)) == list(enumerate(LINES, start=1))


def test_concatenated_files_leave_no_byte_order_mark(tmp_path):
    assert list(numbered_lines(written(tmp_path, "\ufeffa\n\ufeffb"))) == [(1, "a"), (2, "b")]


def test_blocks_are_separated_by_lines_of_spaces_and_tabs_only(tmp_path):
    path = written(tmp_path, "\n\na\nb\n \t\nc\n\u00a0\nd")
    assert list(blocks(path)) == [(3, ["a", "b"]), (6, ["c", "\u00a0", "d"])]


def test_words_are_cut_at_spaces_and_tabs_only():
    assert spaced_words("  a\u00a0b \t c\u2028d\x1c ") == ["a\u00a0b", "c\u2028d\x1c"]


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (b"a\nb\xff\n", "a.txt", "a.txt, line 2: not UTF-8 text (invalid start byte at byte 2 of the line)"),
        (b"a\r\nb\r\n\xe9", "a.txt", "line 3: not UTF-8 text"),
        ("a".encode("utf-16"), "a.txt", "it looks like UTF-16"),
        ("a\n".encode("utf-16-le"), "a.txt", "line 1: not UTF-8 text (a NUL character)"),
        (gzip.compress(b"a\n", mtime=0), "a.txt", "line 1: not UTF-8 text"),
        (gzip.compress(b"a\n", mtime=0), "a.txt", "whose name must end in .gz"),
        (b"a\n", "a.gz", "line 1: damaged .gz file"),
        (b"", "a.gz", "a.gz: damaged .gz file (it is empty)"),
        (gzip.compress(b"a\n" * 9, mtime=0)[:-4], "a.gz", "line 10: damaged .gz file"),
    ],
)
def test_what_is_no_text_is_named_with_its_line(tmp_path, content, name, problem):
    with pytest.raises(FormatError) as error:
        list(numbered_lines(written(tmp_path, content, name)))
    assert problem in str(error.value)


def test_an_error_is_one_line_and_survives_pickling():
    error = FormatError("a.txt", 3, "two\nlines\u2028of it")
    assert str(error) == "a.txt, line 3: two lines of it" == str(pickle.loads(pickle.dumps(error)))
    assert str(FormatError("a.txt", None, "empty")) == "a.txt: empty"
    assert str(FormatError("a.txt", 1, "x" * 5000)).endswith("xxx ...") and len(str(error)) < 400


@settings(max_examples=cases(50, 400))
@given(content=damaged("\ufeffa b\tc\n\nzwei\u00a0drei\n".encode()))
def test_lines_are_those_of_the_text(content, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("text"), content)
    try:
        lines = [line for _, line in numbered_lines(path)]
    except FormatError as error:
        assert str(error).startswith(f"{path}, line ")
        with pytest.raises(UnicodeDecodeError):
            content.replace(b"\0", b"\xff").decode("utf-8")
        return
    expected = [line.removeprefix("\ufeff") for line in re.split(r"\r*\n|\r", content.decode("utf-8"))]
    assert "".join(lines) == "".join(expected)
    assert [line for line in lines if line] == [line for line in expected if line]


@settings(max_examples=cases(25, 200))
@given(content=damaged(b"one\ntwo\n" * 50, zipped=True))
def test_a_damaged_gz_is_read_to_its_end_or_named(content, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("text"), content, "a.gz")
    try:
        list(numbered_lines(path))
    except FormatError as error:
        assert str(error).startswith(str(path)) and len(str(error).splitlines()) == 1


@given(st.binary(max_size=30))
@settings(max_examples=cases(25, 200))
def test_any_bytes_are_lines_or_one_error(tmp_path_factory, content):
    try:
        list(blocks(written(tmp_path_factory.mktemp("text"), content)))
    except FormatError as error:
        assert re.search(r", line \d+: ", str(error))


def test_reading_text_imports_the_standard_library_alone():
    program = "import sys, diffdecode.files.text; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "fairseq", "spacy"} & set(loaded.stdout.split())


ROOT = Path(__file__).resolve().parents[3]
OWN_OUTPUT = {"fairseq_plugins/comparison/runs.py", "fairseq_plugins/comparison/processes.py"}  # logs
BINARY = {"examples/papers/vae.py"}  # images


def opens_text_itself(path):
    """Whether a file of code reads text with ``gzip`` or ``open``, and not through this module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import) and any(alias.name == "gzip" for alias in node.names):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            mode = ast.unparse(node.args[1]) if len(node.args) > 1 else "'r'"
            if not set("wab+") & set(mode) and mode != "mode":  # a writer's, which is told its mode
                return True
    return False


def test_text_is_opened_in_one_way_only(tmp_path):
    for code in ("import gzip", "open(x)", "open(x, 'r')", "open(x, encoding='utf-8')"):
        assert opens_text_itself(written(tmp_path, code, "a.py"))
    assert not opens_text_itself(written(tmp_path, "open(x, 'wb')", "a.py"))
    found = {
        str(path.relative_to(ROOT))
        for folder in ("diffdecode", "fairseq_plugins", "spacy_components", "examples", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if opens_text_itself(path)
    }
    assert found - OWN_OUTPUT - BINARY == {"diffdecode/files/text.py"}
