"""A folder has one owner and one set of settings; a dead owner's lock is free when its children end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from diffdecode.files import claim as claims
from diffdecode.files.atomic import NotWritten
from diffdecode.files.claim import claim, lock

CLAIM = "import sys, pathlib; from diffdecode.files.claim import claim, locks;"
CLAIM += "claim(pathlib.Path(sys.argv[1]), {'a': 1});"


def other(code, folder, **options):
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM + code, str(folder)], stdout=subprocess.PIPE, text=True, **options
    )


@pytest.fixture
def killed_when_done():
    started = []
    yield started.append
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_in_one_line(tmp_path, killed_when_done):
    owner = other("print('ready', flush=True); sys.stdin.read()", tmp_path, stdin=subprocess.PIPE)
    killed_when_done(owner)
    assert owner.stdout.readline() == "ready\n"
    with pytest.raises(ValueError) as caught:
        claim(tmp_path, {"a": 1})
    line = f"another process ({owner.pid}) works in {tmp_path}: wait until it has ended"
    assert str(caught.value) == line
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    claim(tmp_path, {"a": 1})
    claim(tmp_path, {"a": 1})  # the owner again


def test_the_children_of_a_dead_owner_are_waited_for(tmp_path, killed_when_done, monkeypatch):
    """They may still write; a child that does not end is not waited for without end."""
    code = "import subprocess; c = subprocess.Popen(['sleep', sys.argv[2]], pass_fds=locks(),"
    code += "stdout=subprocess.DEVNULL); print(c.pid, flush=True); c.wait()"

    def child_of_a_killed_owner(folder, seconds):
        command = [sys.executable, "-c", CLAIM + code, str(folder), seconds]
        owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        killed_when_done(owner)
        child = int(owner.stdout.readline())
        owner.kill()
        owner.wait()
        return child

    child_of_a_killed_owner(tmp_path / "short", "1")
    started = time.monotonic()
    lock(tmp_path / "short")
    assert time.monotonic() - started > 0.2

    monkeypatch.setattr(claims, "WAIT_FOR_CHILDREN", 0.3)
    child = child_of_a_killed_owner(tmp_path / "long", "1000")
    with pytest.raises(ValueError, match="another process"):
        lock(tmp_path / "long")
    os.kill(child, signal.SIGKILL)


def test_damaged_settings_name_their_file(tmp_path):
    claim(tmp_path, {"a": 1})
    (tmp_path / "settings.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"settings\.json is damaged \(.*\): remove it"):
        claim(tmp_path, {"a": 1})


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotWritten, match=r"cannot write .*file/out: Not a directory"):
        claim(tmp_path / "file" / "out", {})
