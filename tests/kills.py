"""Kills every resumable command at random moments, and compares its end with that of an uninterrupted run.

    python tests/kills.py                      # all of them, a quarter of an hour on two cores
    python tests/kills.py train_beam vae       # some
    python tests/kills.py --kills 10 --seed 7

A command runs once without a disturbance. Then it is started, killed (SIGKILL, the command alone) after a
random time, started again at once, and so on; the last start runs to its end. What it made must be the same,
nothing of a killed command may run on, and no debris may be left. ``test_kills.py`` does the same in small.
"""

import argparse
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patience import HANGS_AFTER

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Resumable:
    """A command and what it makes.

    command: from a folder with inputs and the output folder.
    inputs: writes the inputs to a folder, which is also ``$DIFFDECODE_DATA``.
    made: from the output folder to what must be equal.
    """

    command: Callable[[Path, Path], list[str]]
    made: Callable[[Path], Any]
    inputs: Callable[[Path], None] = field(default=lambda folder: None)


# What the commands read


def texts_and_a_pipeline(folder: Path) -> None:
    # In a process of its own: beside this script lies tests/diffdecode, which would be found as diffdecode.
    make = "import spacy, sys; nlp = spacy.blank('en'); nlp.add_pipe('sentencizer'); nlp.to_disk(sys.argv[1])"
    subprocess.run([sys.executable, "-c", make, str(folder / "model")], check=True, cwd=ROOT)
    for shard in range(4):
        text = "".join(f"He saw {n}. So did she.\n" for n in range(300))
        (folder / f"{shard}.txt").write_text(text, encoding="utf-8")


def sentences(count: int, seed: int) -> list[tuple[list[str], list[str]]]:
    """Words with a label each, which the word tells."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        labels = [rng.choice("NVAD") for _ in range(rng.randint(1, 8))]
        found.append(([f"{label.lower()}{rng.randint(0, 9)}" for label in labels], labels))
    return found


def tagging_columns(folder: Path) -> None:
    for name, count in (("train", 80), ("dev", 30)):
        blocks = ["".join(f"{w}\t{t}\n" for w, t in zip(*pair)) for pair in sentences(count, len(name))]
        (folder / f"{name}.tsv").write_text("\n".join(blocks), encoding="utf-8")


def tagging_binary(folder: Path) -> None:
    for split, count in (("train", 80), ("valid", 30)):
        for side, suffix in enumerate(("words", "labels")):
            text = "".join(" ".join(pair[side]) + "\n" for pair in sentences(count, len(split)))
            (folder / f"{split}.{suffix}").write_text(text, encoding="utf-8")
    prefixes = [f"--{split}pref={folder / split}" for split in ("train", "valid")]
    command = [sys.executable, "-m", "fairseq_cli.preprocess", "-s", "words", "-t", "labels", *prefixes]
    subprocess.run([*command, "--destdir", str(folder / "bin")], check=True, capture_output=True)


def expressions(folder: Path) -> None:
    rng = random.Random(0)
    for name in ("train", "dev"):
        with gzip.open(folder / f"{name}.tsv.gz", "wt", encoding="utf-8") as file:
            for _ in range(20):
                a, b = rng.randint(0, 9), rng.randint(0, 9)
                file.write(f"{max(a, b)}\t( ( ( [MAX {a} ) {b} ) ] )\n")


def treebank_and_reviews(folder: Path) -> None:
    (folder / "ud_english_ewt").mkdir()
    (folder / "sst_binary").mkdir()
    for part, count in (("train", 120), ("dev", 30)):
        with gzip.open(folder / f"ud_english_ewt/en_ewt-ud-{part}.conllu.gz", "wt", encoding="utf-8") as file:
            for words, labels in sentences(count, len(part)):
                for i, (word, label) in enumerate(zip(words, labels), start=1):
                    relation = "root" if i == 1 else label.lower()
                    file.write(f"{i}\t{word}\t_\t_\t_\t_\t{i - 1}\t{relation}\t_\t_\n")
                file.write("\n")
        lines = [f"{int('V' in labels)}\t{' '.join(words)}\n" for words, labels in sentences(count, 9)]
        text = "".join(lines)
        (folder / f"sst_binary/{part}.tsv").write_text(text, encoding="utf-8")


# What the commands make


def results(path: Path, folder: Path) -> Any:
    """What a JSON file says, wherever the output folder is."""
    return json.loads(path.read_text(encoding="utf-8").replace(str(folder), "OUT"))


def comparison(folder: Path) -> Any:
    """Results without times; ``finished`` of every run; that table and picture are whole."""
    found = results(folder / "results.json", folder)
    for row in found["rows"]:
        del row["cpu_seconds"]
    assert (folder / "curves.png").read_bytes().endswith(b"IEND\xaeB`\x82")
    assert sum(path.stat().st_size for path in folder.glob("table.*")) > 100
    return found


def grid(folder: Path) -> Any:
    """All cells without times, and that nothing else is left."""
    kinds = {path.suffix for path in folder.iterdir() if path.name != ".lock"}
    assert kinds == {".json", ".md", ".png"}, kinds
    found = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    return {name: {k: v for k, v in cell.items() if k != "seconds"} for name, cell in found.items()}


def pipelines(folder: Path) -> Any:
    """Weights of every trained pipeline, and the pages."""
    weights = sorted(path for path in folder.rglob("model") if path.is_file())
    assert not list(folder.rglob("training-is-not-finished")) and weights
    # The drawings have random names.
    pages = {
        str(path.relative_to(folder)): re.sub(r"[0-9a-f]{32}", "", path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.html"))
    }
    # Stanza keeps the paths that it was called with.
    own = str(folder).encode()
    return {str(path.relative_to(folder)): path.read_bytes().replace(own, b"OUT") for path in weights} | pages


def taught(folder: Path) -> Any:
    """The scores without times, and the pipelines."""
    rows = results(folder / "results.json", folder)["rows"]
    return [{**row, "seconds": 0} for row in rows], pipelines(folder)


def end_task(folder: Path) -> Any:
    """The scores of every system without times, and the pipelines."""
    found = results(folder / "results.json", folder)
    del found["seconds"]
    return found, pipelines(folder)


def formalisms(folder: Path) -> Any:
    """The scores of every system without times, and the pipelines."""
    found = [results(path, folder) for path in sorted(folder.rglob("scores.json"))]
    for one in found:
        del one["result"]["seconds"]
    return found, pipelines(folder)


def stanza_table(folder: Path) -> Any:
    """The table without times, and the pipelines."""
    rows = (folder / "table.md").read_text(encoding="utf-8")
    return re.sub(r"\d+ s ", "", rows), pipelines(folder)


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def estimators(name: str, *arguments: str) -> Callable[[Path, Path], list[str]]:
    code = (
        "import sys; from examples._shared import runs; runs.SECONDS_BETWEEN_CHECKPOINTS = 0;"
        f"from examples.papers import {name}; {name}.main(sys.argv[1:])"
    )
    return lambda data, out: [sys.executable, "-c", code, "--out", str(out), "--seeds", "2", *arguments]


SPACY_DEMO = (
    "import sys; from examples.spacy import demo;"
    "demo.SIZES = {'trees': 20, 'reviews': 120, 'dev': 20, 'test': 20};"
    "demo.METHODS = ('ste', 'spigot'); demo.main(sys.argv[1:])"
)
TEACH_PARSER = (
    "import sys; from examples.papers.teach_parser import __main__ as recipe;"
    "recipe.QUICK |= {'sentences': 60, 'steps': 8, 'start_steps': 8}; recipe.main(sys.argv[1:])"
)
TAGGER = "--arch fixed_attention_lstm_ner --cpu --dropout 0.1 --max-tokens 200 --num-workers 0 --seed 1"
COMMANDS = {
    "train_beam": Resumable(
        lambda data, out: module(
            "fairseq_plugins.train_beam", str(data / "bin"), "--out", str(out), *TAGGER.split(),
            *"--epochs 8 --patience 2 --more-epochs 2 --lr 0.05 --alpha 0.5".split(),
        ),
        comparison,
        tagging_binary,
    ),
    "tagging": Resumable(
        lambda data, out: module(
            "examples.tagging.demo", "--data", str(data), "--out", str(out), "--quick", "--hidden", "16",
            "--device", "cpu",
        ),
        comparison,
        tagging_columns,
    ),
    "translation": Resumable(
        lambda data, out: module(
            "examples.papers.translation", "--quick", "--out", str(out),
            *"--pairs 80 --aside 10 --units 8 --systems ce risk".split(),
        ),
        comparison,
    ),
    "polynomial": Resumable(
        estimators("polynomial", *"--epochs 6 --variables 4 --exponents 2 --methods st reinmax".split()), grid
    ),
    "vae": Resumable(estimators("vae", *"--epochs 6 --methods st reinmax".split()), grid),
    "listops": Resumable(
        lambda data, out: estimators(
            "listops", "--data", str(data), *"--epochs 6 --hidden 8 --methods st rloo,samples=2".split()
        )(data, out),
        grid,
        expressions,
    ),
    "bias_variance": Resumable(
        estimators("bias_variance", *"--samples 4000 --methods st reinmax soft".split()), grid
    ),
    "spacy": Resumable(
        lambda data, out: [
            sys.executable, "-c", SPACY_DEMO, "--out", str(out), "--steps", "30", "--more-steps", "8"
        ],
        pipelines,
    ),
    "teach_parser": Resumable(
        lambda data, out: [
            sys.executable, "-c", TEACH_PARSER, "--quick", "--out", str(out), "--systems", "none", "ste"
        ],
        taught,
    ),
    "freda": Resumable(
        lambda data, out: module(
            "examples.spacy.freda", "--out", str(out), "--quick",
            *"--systems alone freda --seeds 0 --steps 4".split(),
        ),
        formalisms,
    ),
    "supertagging": Resumable(
        lambda data, out: module(
            "examples.papers.supertagging", "--quick", "--out", str(out),
            *"--sentences 60 --aside 20 --hidden 8 --systems direct_own".split(),
        ),
        comparison,
    ),
    "incremental_tagging": Resumable(
        lambda data, out: module(
            "examples.papers.incremental_tagging", "--quick", "--out", str(out),
            *"--sentences 60 --aside 20 --hidden 8 --systems global".split(),
        ),
        comparison,
    ),
    "syntax_semantics": Resumable(
        lambda data, out: module("examples.papers.syntax_semantics", "--quick", "--out", str(out)), end_task
    ),
    "sentiment": Resumable(
        lambda data, out: module("examples.papers.sentiment", "--quick", "--out", str(out)), end_task
    ),
    "finetune_stanza": Resumable(
        lambda data, out: module(
            "examples.finetune_stanza", "--out", str(out), "--systems", "pipeline", "spigot",
            *"--parser-steps 40 --reviews 60 --epochs 4 --trees 0.5".split(),
        ),
        stanza_table,
        treebank_and_reviews,
    ),
    "parse_corpus": Resumable(
        lambda data, out: module(
            "examples.scale.parse_corpus", str(data / "model"), *(str(data / f"{n}.txt") for n in range(4)),
            "--out", str(out), "--workers", "0",
        ),
        lambda out: {path.name: path.read_bytes() for path in out.glob("*.spacy")},
        texts_and_a_pipeline,
    ),
}  # fmt: skip


# How they are killed


def start(command: list[str], data: Path, log: Path) -> subprocess.Popen:
    fixed = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0", "DIFFDECODE_DATA": str(data)}
    with open(log, "a", encoding="utf-8") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | fixed, stdout=output, stderr=subprocess.STDOUT
        )


def finish(command: list[str], data: Path, log: Path) -> float:
    """Run to the end; seconds that it took. Raises RuntimeError with the end of its output if it fails."""
    started = time.monotonic()
    if start(command, data, log).wait() != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise RuntimeError("failed:\n" + "\n".join(lines[-25:]))
    return time.monotonic() - started


def still_running(out: Path) -> list[str]:
    """Command lines (Linux) that name the output folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(out) in word for word in words):
            found.append(" ".join(words))
    return found


def debris(out: Path) -> list[str]:
    return [str(path) for path in out.rglob("*") if path.name.endswith((".unfinished", ".previous", ".tmp"))]


def survives(name: str, folder: Path, kills: int, seed: int) -> str:
    """One line on what was done. Raises AssertionError or RuntimeError if the command does not survive."""
    this, rng = COMMANDS[name], random.Random(f"{name}-{seed}")
    data, log = folder / "data", folder / "log"
    data.mkdir(parents=True)
    this.inputs(data)
    whole, parts = folder / "whole", folder / "parts"
    seconds = finish(this.command(data, whole), data, log)
    command, moments = this.command(data, parts), []
    for _ in range(kills):
        process = start(command, data, log)
        # Now early, when it has just gone on, now anywhere, so that the last stages are met too.
        moments.append(seconds * rng.uniform(0, rng.choice([1.5 / kills, 1])))
        time.sleep(moments[-1])
        process.send_signal(signal.SIGKILL)
        process.wait()
        end = time.monotonic() + HANGS_AFTER
        while running := still_running(parts):
            assert time.monotonic() < end, f"runs on after its parent was killed: {running}"
            time.sleep(0.05)
    finish(command, data, log)
    assert this.made(parts) == this.made(whole), "another result than without kills"
    assert not debris(parts), debris(parts)
    times = ", ".join(f"{moment:.1f}" for moment in moments)
    return f"{name}: {seconds:.1f} s alone, killed after {times} s: the same result"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(COMMANDS)}")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if unknown := set(args.names) - set(COMMANDS):
        parser.error(f"no command {', '.join(sorted(unknown))}; there are {', '.join(COMMANDS)}")
    failed = []
    for name in args.names or COMMANDS:
        folder = Path(tempfile.mkdtemp(prefix=f"kills-{name}-"))
        try:
            print(survives(name, folder, args.kills, args.seed), flush=True)
            shutil.rmtree(folder)
        except (AssertionError, RuntimeError) as error:
            failed.append(name)
            print(f"{name}: FAILED, see {folder}: {error}", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
