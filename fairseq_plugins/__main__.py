"""``python -m fairseq_plugins``: what diffdecode adds to fairseq, and all its options.

``--markdown`` prints the tables of options as they stand in the documentation.
"""

import argparse
import textwrap
from collections.abc import Iterator
from itertools import starmap

from fairseq_plugins.options import Row, rows

ARCHITECTURE = "--arch"
WIDTH = 100


def additions() -> Iterator[tuple[str, str, type | None, str | None]]:
    """What is registered with fairseq: ``(option, name, configuration or None, what it is)``."""
    from fairseq import models, tasks
    from fairseq.registry import REGISTRIES

    import fairseq_plugins  # noqa: F401  (registers)

    criterions, scorers = (
        (f"--{kind}", REGISTRIES[kind]["registry"], REGISTRIES[kind]["dataclass_registry"])
        for kind in ("criterion", "scoring")
    )
    for choice, classes, configurations in (
        criterions,
        ("--task", tasks.TASK_REGISTRY, tasks.TASK_DATACLASS_REGISTRY),
        (ARCHITECTURE, models.MODEL_REGISTRY, models.MODEL_DATACLASS_REGISTRY),
        scorers,
    ):
        for name in sorted(filter(lambda name: _is_ours(classes[name]), classes)):
            yield choice, name, configurations.get(name), classes[name].__doc__
            if choice == ARCHITECTURE:
                for size in sorted(set(models.ARCH_MODEL_INV_REGISTRY[name]) - {name}):
                    yield choice, size, None, models.ARCH_CONFIG_REGISTRY[size].__doc__


def _is_ours(registered: type) -> bool:
    return registered.__module__.startswith("fairseq_plugins.")


def text(choice: str, name: str, config: type | None, about: str | None) -> str:
    """One addition as it is read in a terminal."""
    lines = [f"{choice} {name}", _filled(_first_paragraph(about), 2)]
    for row in rows(config) if config else ():
        lines.append(f"  {row.name} (default: {row.default})")
        meaning = f"{row.meaning} [{row.source}]".replace("`", "")
        lines.append(_filled(meaning, 6))
    return "\n".join(lines)


def markdown(config: type) -> str:
    """The table of options of the documentation."""
    lines = ["| option | default | meaning | source |", "|---|---|---|---|"]
    return "\n".join([*lines, *map(_markdown_row, rows(config))]) + "\n"


def _markdown_row(row: Row) -> str:
    return f"| `{row.name}` | {row.default} | {row.meaning} | {row.source} |"


def _first_paragraph(about: str | None) -> str:
    return " ".join((about or "").strip().split("\n\n")[0].split())


def _filled(paragraph: str, indent: int) -> str:
    space = " " * indent
    return textwrap.fill(
        paragraph, WIDTH, initial_indent=space, subsequent_indent=space, break_on_hyphens=False
    )


def main(argv: list[str] | None = None) -> None:
    """Show everything, as help or as tables."""
    everything = list(additions())
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_plugins",
        description="What diffdecode adds to fairseq: fairseq-train ... --user-dir fairseq_plugins.",
        epilog="\n\n".join(starmap(text, everything)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables of options as Markdown")
    if not parser.parse_args(argv).markdown:
        parser.print_help()
        return
    for choice, name, config, _ in everything:
        if config is not None and any(rows(config)):
            print(f"## `{choice} {name}`\n\n{markdown(config)}")


if __name__ == "__main__":
    main()
