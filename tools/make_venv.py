"""Make, update or repair the virtual environment of the Makefile: ``python3 tools/make_venv.py .venv``.

Standard library only. What is installed already is kept, torch above all; nothing is downloaded, and nothing
takes longer than a moment, when neither ``setup.py`` nor ``constraints.txt`` (nor anything else that decides
what is installed) has changed since the last time.
"""

import argparse
import ast
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from diffdecode.files.atomic import write_text  # noqa: E402  (of the standard library only, as this file)

DECIDING = ("setup.py", "pyproject.toml", "constraints.txt", "tools/make_venv.py")
FAIRSEQ = "fairseq==0.12.2"
TORCH_CPU_INDEX = os.environ.get("TORCH_CPU_INDEX", "https://download.pytorch.org/whl/cpu")
# What the state file says: nothing (an environment that somebody else made), a fingerprint (ready), or
UNFINISHED = "unfinished"  # a set-up runs or was killed: files may be missing anywhere
FAILED = "failed"  # pip gave up: what is there is whole
# pip's settings that uv has, too, each with uv's option, and those that change nothing in what is installed.
UV_OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraint",
}
OF_NO_MATTER = {
    "cert",
    "default-timeout",
    "timeout",
    "retries",
    "disable-pip-version-check",
    "no-input",
    "quiet",
}
CHECK = """
import importlib.metadata as installed, importlib.util
for name in ("torch", "fairseq", "spacy", "stanza", "numba", "pytest", "diffdecode"):
    installed.version(name)
for package in ("torch", "fairseq", "fairseq_compat.hook"):
    assert importlib.util.find_spec(package)
"""


class Venv:
    """The environment in ``folder``; its file ``diffdecode-setup`` says how far it has been set up."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.state_file = folder / "diffdecode-setup"

    @property
    def state(self) -> str:
        return self.state_file.read_text() if self.state_file.exists() else ""

    def is_ready(self, wanted: str) -> bool:
        """Whether it was set up from the present files and still works."""
        return self.state == wanted and self.answers("-c", CHECK) is not None

    def answers(self, *args: str) -> str | None:
        """Standard output of the environment's Python, or None if it fails."""
        try:
            run = subprocess.run([self.python, *args], cwd="/", capture_output=True, text=True)
        except OSError:
            return None
        return run.stdout.strip() if run.returncode == 0 else None

    def pip(self, *args: str) -> None:
        """Run the environment's pip; raise ``CalledProcessError`` if it fails."""
        print("pip", *args, flush=True)
        quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        subprocess.run(
            [self.python, "-m", "pip", "--quiet", *args], cwd=ROOT, env=os.environ | quiet, check=True
        )

    @cached_property
    def uv_options(self) -> list[str] | None:
        """What uv is told of pip's settings, which are read once; None where pip has to install."""
        return uv_options(self.answers("-m", "pip", "config", "list"))

    def install(self, *args: str) -> None:
        """Install packages: by uv, which takes a small part of pip's time, or by pip where it cannot.

        pip's settings hold for uv, too; where they say what uv does not know, pip installs.
        """
        if self.uv_options is not None:
            try:
                if self.answers("-m", "uv", "--version") is None:
                    self.pip("install", "uv")
                print("uv pip install", *args, flush=True)
                command = [self.python, "-m", "uv", "pip", "install", "--quiet", "--python", self.python]
                subprocess.run(
                    [*command, "--compile-bytecode", *self.uv_options, *args], cwd=ROOT, check=True
                )
                return
            except subprocess.CalledProcessError:
                print("uv gave up, see above: trying pip", flush=True)
        self.pip("install", *args)

    def create(self, flags: list[str]) -> None:
        """Make the environment anew, unless it is there, works and no earlier set-up was killed in it."""
        has_pip = self.answers("-m", "pip", "--version") or self.answers("-m", "ensurepip")
        if has_pip and self.state != UNFINISHED:
            return
        if self.folder.exists():
            print(f"{self.folder} is broken or half-made: making it anew", flush=True)
            shutil.rmtree(self.folder)
        subprocess.run([sys.executable, "-m", "venv", *flags, self.folder], check=True)
        write_text(self.state_file, UNFINISHED)


def fingerprint(options: argparse.Namespace) -> str:
    """One string that changes with everything that decides what is installed."""
    digest = hashlib.sha256(repr((ROOT, options.pip)).encode())
    for name in DECIDING:
        digest.update(ROOT.joinpath(name).read_bytes())
    return digest.hexdigest()


def uv_options(pip_config: str | None) -> list[str] | None:
    """uv's options for what ``pip config list`` printed; None if it fails or says what uv lacks."""
    if pip_config is None:
        return None
    options = ["--index-strategy", "unsafe-best-match"]  # as pip: the newest version, whichever index has it
    for line in pip_config.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in UV_OPTIONS:
            for one in ast.literal_eval(value).split():
                options += [UV_OPTIONS[name], one]
        elif name not in OF_NO_MATTER:
            return None
    return options


def install_torch(venv: Venv) -> Path:
    """Make sure of torch; return the constraints to install the rest with, which hold that torch fast.

    On Linux the package index gives a torch of several gigabytes, with CUDA. Without an NVIDIA GPU the CPU
    build is taken: from wherever pip is told to look, else from PyTorch's own index.
    """
    present = venv.answers("-c", "import importlib.metadata as m; print(m.version('torch'))")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    (pin,) = [line for line in lines if line.startswith("torch==")]
    if not present:
        if platform.system() == "Linux" and not has_nvidia_gpu():
            try:
                venv.install(f"{pin}+cpu")
            except subprocess.CalledProcessError:
                print(f"no CPU build where pip looks: trying {TORCH_CPU_INDEX}", flush=True)
                venv.install(f"{pin}+cpu", "--extra-index-url", TORCH_CPU_INDEX)
        else:
            venv.install(pin)
        present = pin.removeprefix("torch==")
    constraints = venv.folder / "constraints.txt"
    write_text(constraints, "\n".join([*(line for line in lines if line != pin), f"torch=={present}", ""]))
    return constraints


def has_nvidia_gpu() -> bool:
    """Whether the NVIDIA driver is loaded or its tool is installed."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def install(venv: Venv, options: argparse.Namespace) -> None:
    """All packages, ours in editable form. fairseq comes last and alone: its own pins cannot be met."""
    if options.pip:
        newest = options.pip == "newest"
        venv.pip("install", "--upgrade", "pip" if newest else f"pip=={options.pip}")
    constraints = install_torch(venv)
    venv.install("--constraint", str(constraints), "--editable", ".[all]")
    venv.install("--no-deps", FAIRSEQ)


def set_up(venv: Venv, options: argparse.Namespace, wanted: str) -> None:
    """Create and install; exit with a hint if a step fails."""
    start = time.monotonic()
    try:
        venv.create(options.venv_flags.split())
        if venv.state:
            write_text(venv.state_file, UNFINISHED)
        install(venv, options)
        if venv.state and venv.answers("-c", CHECK) is None:  # files are gone that pip believes to be there
            venv.create(options.venv_flags.split())
            install(venv, options)
        if venv.answers("-c", CHECK) is None:
            sys.exit(f"{venv.folder} does not work although pip succeeded: remove it and run make again")
    except subprocess.CalledProcessError as error:
        if venv.state:
            write_text(venv.state_file, FAILED)
        command = " ".join(map(str, error.cmd))
        sys.exit(
            f"Setting up {venv.folder} failed in: {command}\nSee above. A missing compiler or header comes,"
            " on Debian, with: apt install g++ python3-dev python3-venv. Then run make again."
        )
    write_text(venv.state_file, wanted)
    # A failure shows again, and is told better, at the first call that needs a kernel.
    subprocess.run([venv.python, "-m", "diffdecode.compile"], cwd=ROOT, check=False)
    print(f"{venv.folder} is ready after {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    """Bring the environment up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pip", default="", help="a version of pip to install first, or 'newest'")
    parser.add_argument("--venv-flags", default="", help="for python -m venv, e.g. --system-site-packages")
    options = parser.parse_args()
    if not (3, 10) <= sys.version_info < (3, 14):
        sys.exit(
            f"diffdecode needs Python 3.10 to 3.13, this is {platform.python_version()}: make PYTHON=..."
        )

    venv, wanted = Venv(options.folder.absolute()), fingerprint(options)
    if venv.is_ready(wanted):
        return
    with open(__file__) as lock:  # two makes at once: the second waits, and finds the work done
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not venv.is_ready(wanted):
            set_up(venv, options, wanted)


if __name__ == "__main__":
    main()
