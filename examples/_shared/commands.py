"""What every recipe does on the command line."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from examples._shared.data import data_folder


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and a description as it is."""


def add_out(parser: argparse.ArgumentParser, default: str | Path) -> None:
    """The option ``--out``."""
    parser.add_argument("--out", type=Path, default=Path(default), help="where everything is written")


def add_experiment(parser: argparse.ArgumentParser, name: str, seeds: int, data: str = "") -> None:
    """The options of every experiment of a paper.

    Args:
        parser: of the command line.
        name: of the experiment, and of its folder in ``runs``.
        seeds: how many, if not said.
        data: its folder below the data folder; none: it has no data.
    """
    add = parser.add_argument
    if data:
        add("--data", type=Path, default=data_folder() / data, help="folder of its data")
        add("--test", type=Path, help="a file to report on besides dev: given once, at the end")
    add_out(parser, f"runs/{name}")
    add("--seeds", type=int, default=seeds, help="how many; can be raised later")
    add_device(parser, "cpu")
    add("--quick", action="store_true", help="small, on generated data, in a minute: to see that it works")


def add_device(parser: argparse.ArgumentParser, default: str) -> None:
    """The option ``--device``; :func:`device` turns its value into a device.

    Args:
        parser: of the command line.
        default: one of its values.
    """
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default=default, help="auto: a GPU, if there is one"
    )


def device(name: str) -> str:
    """``cpu`` or ``cuda``. Raises ValueError if there is no GPU where ``cuda`` is asked for."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("--device cuda: PyTorch finds no GPU here")
    return {"auto": "cuda" if there else "cpu"}.get(name, name)


def fairseq_device(name: str) -> list[str]:
    """fairseq's option for the CPU; without it, it takes a GPU.

    Args:
        name: what :func:`device` returned.
    """
    return ["--cpu"] if name == "cpu" else []


@contextlib.contextmanager
def one_line_errors(recipe: str, *more: type[Exception]) -> Iterator[None]:
    """Ends the program with one line for what a user can mend: missing data, bad files, a full disk.

    Args:
        recipe: its name, which begins the line.
        more: kinds of errors besides OSError and ValueError.
    """
    try:
        yield
    except (OSError, ValueError, *more) as error:
        sys.exit(f"{recipe}: {error}")
