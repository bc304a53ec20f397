"""Training of spaCy pipelines: a config from scratch, or on from a trained pipeline."""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import spacy
import torch
from spacy import util
from spacy.language import Language
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from thinc.api import Config, use_ops

import spacy_components
from diffdecode.files.atomic import write_text
from diffdecode.files.claim import lock
from examples._shared.commands import device
from examples._shared.data import data_file
from spacy_components.cli.convert_sdp import convert, summary

PACKAGE_CONFIGS = Path(spacy_components.__file__).parent / "configs"
UNFINISHED = "training-is-not-finished"
BEST, LAST = "model-best", "model-last"
COMPONENTS = (
    "spacy_components.pipeline.spigot_parser",
    "spacy_components.pipeline.spigot_sdp",
    "spacy_components.ml.trees.models",
    "spacy_components.ml.graphs.models",
    "spacy_components.ml.listening.concat",
    "spacy_components.ml.listening.listener",
    "spacy_components.ml.segments",
    "spacy_components.ml.thinc_glue.word_dropout",
    "spacy_components.pipeline.masked_textcat",
    "spacy_components.training.corpus",
    "spacy_components.training.mixing",
    "spacy_components.training.scorers",
)


def use_device(name: str) -> None:
    """Let spaCy work on the device of the option ``--device``. Raises ValueError if it cannot."""
    if device(name) == "cuda":
        spacy.require_gpu()


@contextmanager
def numpy_products(name: str) -> Iterator[None]:
    """Multiply matrices with numpy instead of BLIS, if the option ``--device`` says CPU.

    thinc takes BLIS by default; for the few hundred words of a batch numpy needs a third of its time.
    """
    with use_ops("numpy", use_blis=False) if device(name) == "cpu" else nullcontext():
        yield


def register_components() -> None:
    """Makes the components known to spaCy, which otherwise finds them through the installed package."""
    for module in COMPONENTS:
        importlib.import_module(module)


def converted(source: str, target: Path, **options: Any) -> str:
    """The path of ``source`` (below the data folder) as a .spacy file, made if it is not there."""
    if not target.exists():
        print(f"{target}: {summary(convert(data_file(source), target, **options))}")
    return str(target)


def train_from_scratch(
    config: Path,
    folder: Path,
    overrides: dict[str, Any],
    start: dict[str, Path] | None = None,
    wanted: str = BEST,
) -> Language:
    """What ``spacy train config.cfg --output folder`` does; returns one of the two pipelines it saves.

    Args:
        start: components that start with the weights of the same component in a trained pipeline, by
            name.
        wanted: ``BEST`` or ``LAST``.
    """
    register_components()
    nlp = init_nlp(_with_overrides(config, overrides))
    for name, trained in (start or {}).items():
        nlp.get_pipe(name).from_disk(whole_pipeline(trained) / name, exclude=["vocab"])
    return _train(nlp, folder, wanted)


def train_on(trained: Path, folder: Path, overrides: dict[str, Any]) -> Language:
    """Trains all components of a pipeline on, with other settings; returns the best pipeline.

    The weights stay, so settings may change what is learned, not the size of the models.
    """
    register_components()
    config = _with_overrides(whole_pipeline(trained) / "config.cfg", overrides)
    nlp = util.load_model(trained, config=config)
    nlp.config = config
    return _train(nlp, folder)


def whole_pipeline(trained: Path) -> Path:
    """The folder of a pipeline. Raises ValueError if there is none, or if its training did not end."""
    if not (trained / "config.cfg").is_file():
        raise ValueError(f"no pipeline in {trained}")
    if (trained.parent / UNFINISHED).exists():
        raise ValueError(f"the training of {trained} was interrupted: run its command again first")
    return trained


def learn_rate(rate: float, steps: int) -> dict[str, Any]:
    """Settings for a rate that goes up for a twentieth of the steps and then down to 0."""
    schedule = {"@schedules": "warmup_linear.v1", "warmup_steps": steps // 20, "total_steps": steps}
    return {"training.optimizer.learn_rate": schedule | {"initial_rate": rate}}


def _with_overrides(path: Path, overrides: dict[str, Any]) -> Config:
    """The config with new values for its dotted names; unlike on the command line, also whole sections."""
    config = util.load_config(path, interpolate=False)
    for name, value in overrides.items():
        *sections, option = name.split(".")
        block = config
        for section in sections:
            block = block[section]
        block[option] = value
    return Config(config)


def _train(nlp: Language, folder: Path, wanted: str = BEST) -> Language:
    """spaCy writes its pipelines in place; while it may be at it, a file says so."""
    torch.set_num_threads(1)
    lock(folder)
    write_text(folder / UNFINISHED, "")
    try:
        train(nlp, folder, stdout=sys.stdout, stderr=sys.stderr)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        problem = f"cannot write to {folder}: {error.strerror}. Its training is not finished: run it again"
        raise OSError(problem) from error  # spaCy's own does not say which disk
    (folder / UNFINISHED).unlink()
    return util.load_model(folder / wanted)
