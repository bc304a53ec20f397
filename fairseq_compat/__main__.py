"""``python -m fairseq_compat``: versions, and which fixes are in force."""

import platform
from importlib.metadata import PackageNotFoundError, version

import fairseq_compat
from fairseq_compat import hook


def main():
    """Import fairseq with the fixes and print one line each."""
    hook.install()
    import fairseq
    import numpy
    import torch

    print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}")
    for name in ("fairseq", "fairseq-fixed"):
        try:
            print(f"{name} {version(name)} in {fairseq.__path__[0]}")
        except PackageNotFoundError:
            continue
    states = {True: "applied", False: "not needed here"}
    for name in fairseq_compat.BEFORE_IMPORT:
        print(f"{name:20} {'during import' if fairseq_compat.enabled(name) else 'switched off'}")
    for name in fairseq_compat.AFTER_IMPORT:
        print(f"{name:20} {states.get(fairseq_compat.apply().get(name), 'switched off')}")


if __name__ == "__main__":
    main()
