"""Outputs are whole or as they were: after errors, kills at every step, a full disk; and debris goes away."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffdecode.files import atomic
from diffdecode.files.atomic import NotWritten, atomic_folder, atomic_path, atomic_write


def names(folder):
    return sorted(os.listdir(folder))


def test_text_bytes_and_json(tmp_path):
    atomic.write_text(tmp_path / "a", "ä\nb", newline="\r\n")
    assert (tmp_path / "a").read_bytes() == "ä\r\nb".encode()
    atomic.write_bytes(str(tmp_path / "a"), b"\0\n")
    assert (tmp_path / "a").read_bytes() == b"\0\n"
    atomic.write_json(tmp_path / "a", {"x": [1]})
    assert json.loads((tmp_path / "a").read_text()) == {"x": [1]}
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("before", ["old", None])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path, before, error):
    path = tmp_path / "a.json"
    if before:
        path.write_text(before)
    with pytest.raises(error), atomic_write(path) as file:
        file.write("new")
        raise error
    with pytest.raises(TypeError):
        atomic.write_json(path, object())
    assert names(tmp_path) == (["a.json"] if before else [])
    assert not before or path.read_text() == before


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "out"
    for content in ("one", "two"):
        with atomic_folder(path) as part:
            (part / "sub").mkdir()
            (part / "sub" / content).touch()
            assert part.parent == tmp_path
        assert names(path / "sub") == [content]
    with pytest.raises(ValueError), atomic_folder(path) as part:
        (part / "half").touch()
        raise ValueError
    assert names(tmp_path) == ["out"]
    assert names(path / "sub") == ["two"]


def test_where_names_cannot_be_swapped_the_previous_folder_is_put_back(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_swap", lambda one, other: False)
    path = tmp_path / "out"
    for content in ("one", "two"):
        with atomic_folder(path) as part:
            (part / content).touch()
    assert names(tmp_path) == ["out"]
    assert names(path) == ["two"]
    path.rename(tmp_path / ".out.0a.previous")  # killed between the two renames
    with pytest.raises(ValueError), atomic_folder(path):
        assert names(path) == ["two"]
        raise ValueError
    assert names(path) == ["two"]


KILLED_AT_EVERY_STEP = """
import os, pathlib, sys, threading
from diffdecode.files.atomic import atomic_folder, atomic_write

target, kind = pathlib.Path(sys.argv[1]), sys.argv[2]

def fill(content):
    if kind == "file":
        with atomic_write(target) as file:
            for letter in content:
                file.write(letter)
                file.flush()
                sys.audit("step")
    else:
        with atomic_folder(target) as part:
            for letter in content:
                (part / letter).write_text(letter)

def found():
    if kind == "file":
        return target.read_text()
    return "".join(sorted(os.listdir(target)))

fill("abc")
for last in range(1, 1000):
    child = os.fork()
    if child == 0:
        steps = 0
        def hook(event, arguments):
            global steps
            if event.split(".")[0] in ("open", "step", "os", "shutil", "fcntl", "ctypes"):
                steps += 1
                if steps == last:
                    os._exit(9)
        sys.addaudithook(hook)
        fill("xyz")
        os._exit(0)
    code = os.waitpid(child, 0)[1]
    assert found() in ("abc", "xyz"), (last, found())
    debris = [name for name in os.listdir(target.parent) if name != target.name]
    assert all(name.startswith(".target.") and name.endswith(".unfinished") for name in debris), debris
    fill("abc")
    assert found() == "abc" and os.listdir(target.parent) == [target.name], os.listdir(target.parent)
    if code == 0:
        break
print(last)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_at_every_step(tmp_path, kind):
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path / "target"), kind]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 10 < int(done.stdout) < 100


def test_debris_is_removed_and_a_living_writer_is_not_disturbed(tmp_path):
    path = tmp_path / "a.json"
    script = (
        "import os, signal, sys\nfrom diffdecode.files.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write('half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -signal.SIGKILL
    (debris,) = names(tmp_path)
    assert debris.startswith(".a.json.") and debris.endswith(".unfinished")
    assert list(tmp_path.glob("*.json")) == []
    other = tmp_path / ".a.json.b.00.unfinished"  # of the output "a.json.b"
    other.touch()
    with atomic_write(path) as slow:
        slow.write("slow")
        assert debris not in names(tmp_path)
        atomic.write_text(path, "quick")
        assert path.read_text() == "quick"
    assert path.read_text() == "slow"
    assert names(tmp_path) == [other.name, "a.json"]


def test_a_full_disk_leaves_what_was_there_and_one_line(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(NotWritten) as caught:
            atomic.write_text(path, "x" * 5000)
        with pytest.raises(NotWritten) as caught_new, atomic_folder(tmp_path / "out") as part:
            (part / "big").write_bytes(b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == f"cannot write {path}: File too large (what was there is unchanged)"
    assert str(caught_new.value) == f"cannot write {tmp_path}/out: File too large (nothing was written)"
    assert isinstance(caught.value, OSError)
    assert names(tmp_path) == ["a"]
    assert path.read_text() == "old"


def test_errors_that_are_not_about_the_output_keep_their_words(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "input").read_text()


def test_links_permissions_and_devices(tmp_path):
    real = tmp_path / "real"
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(real)
    atomic.write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640
    atomic.write_text("/dev/null", "nothing")
    assert not Path("/dev/null").is_file()


def test_places_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(NotWritten, match=r"cannot write .*/missing/a: No such file or directory"):
        atomic.write_text(tmp_path / "missing" / "a", "")
    with pytest.raises(NotWritten, match="Is a directory"):
        atomic.write_text(tmp_path, "")
    (tmp_path / "a").touch()
    with pytest.raises(NotWritten, match="Not a directory"), atomic_folder(tmp_path / "a"):
        pass
    if os.geteuid() != 0:
        (tmp_path / "a").chmod(0o444)
        with pytest.raises(NotWritten, match="Permission denied"):
            atomic.write_text(tmp_path / "a", "")


def test_writers_that_take_a_name(tmp_path):
    with atomic_path(tmp_path / "a.png") as part:
        part.write_bytes(b"x")
        assert part.suffix == ".unfinished"
    assert (tmp_path / "a.png").read_bytes() == b"x"
