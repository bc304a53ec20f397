"""All benchmarks, one after the other: ``python -m benchmarks [NAME ...]`` (``make bench``).

Each is also a command of its own, ``python -m benchmarks.NAME --help``. Their results lie in
``benchmarks/results``.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from rich.console import Console

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=", ".join(NAMES))
    names = parser.parse_args().names
    if unknown := set(names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    console, failed = Console(), []
    for name in names:
        console.rule(name)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode != 0:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
