"""A guard rail for finetuning: a logger that watches one component's own score while another task trains it.

::

    [training.logger]
    @loggers = "diffdecode.GuardedLogger.v1"
    component = "spigot_parser"
    metric = "dep_uas"
    floor = 0.85
    action = "rollback"

    [training.score_weights]
    dep_uas = 0.0          # a column of the table, at least
    cats_score = 0.4
    guard = 0.6            # more than all others together

spaCy's training loop keeps the pipeline with the best score. So that this is never one below the floor, the
guarded component's scores get one more, ``guard``: 0, or -1 below the floor.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

from spacy import registry
from spacy.language import Language
from spacy.training.loggers import console_logger_v3
from spacy.training.loop import DIR_MODEL_BEST
from spacy.ty import ListenedToComponent
from wasabi import Printer

from spacy_components.finetuning.snapshot import Snapshot

NAME = "diffdecode.GuardedLogger.v1"
GUARD = "guard"
LogStep = Callable[[dict[str, Any] | None], None]


@registry.loggers(NAME)
def create_guarded_logger(
    component: str = "spigot_parser",
    metric: str = "dep_uas",
    floor: float | None = None,
    action: Literal["report", "stop", "rollback"] = "report",
    backoff: float = 0.5,
    logger: Callable | None = None,
) -> Callable[[Language, IO, IO], tuple[LogStep, Callable[[], None]]]:
    """Logs as ``logger`` does, and acts where a component's own score falls below a floor.

    Args:
        component: the component to guard.
        metric: its score, such as ``dep_uas`` or ``dep_las``; ``[training.score_weights]`` has to have
            it.
        floor: the least that it may be, from 0 to 1; null for no guard.
        action: below it, only ``report``; or ``stop`` the training (it ends well, and the best pipeline
            is kept); or ``rollback``: give the component, and a tok2vec or transformer that it shares,
            the parameters and the optimizer's state of the last evaluation above the floor (before there
            is one: of the start), and go on.
        backoff: what the component's learning rate is multiplied with at each rollback, so that it does
            not go the same way again. (A smaller ``grad_factor`` would not do: Adam's steps are as large
            then.)
        logger: the logger inside; null for spaCy's console logger.
    """

    def setup(nlp: Language, stdout: IO = sys.stdout, stderr: IO = sys.stderr):
        log_step, finalize = (logger or console_logger_v3())(nlp, stdout, stderr)
        if floor is None:
            return log_step, finalize
        guard = Guard(nlp, component, metric, floor, action, backoff, stdout)

        def log_and_guard(info: dict[str, Any] | None) -> None:
            log_step(info)
            if info is not None:
                guard.check(info)

        def finalize_both() -> None:
            finalize()
            guard.finish()

        return log_and_guard, finalize_both

    return setup


class Guard:
    """What ``create_guarded_logger`` does besides logging; see there."""

    def __init__(
        self,
        nlp: Language,
        component: str,
        metric: str,
        floor: float,
        action: str,
        backoff: float,
        stdout: IO,
    ):
        self.pipe = nlp.get_pipe(component)
        self.metric, self.floor, self.action, self.backoff = metric, floor, action, backoff
        self.patience = nlp.config["training"]["patience"]
        self._check_settings(nlp.config["training"]["score_weights"])
        self._say = lambda text: print(text, file=stdout, flush=True)
        self._history: list[float] = []
        self._models = [self.pipe.model, *_shared_encoders(nlp, component)]
        self._good = self._snapshot() if action == "rollback" else None
        self._good_step = "the start"
        self._scorer = self.pipe.scorer
        self.pipe.scorer = self._guarded_score

    def _check_settings(self, weights: dict[str, float | None]) -> None:
        if weights.get(self.metric) is None:
            raise ValueError(
                f"{NAME}: {self.metric} is not in [training.score_weights]; add {self.metric} = 0.0 to see it"
            )
        others = sum(abs(weight) for name, weight in weights.items() if weight and name != GUARD)
        if not (weights.get(GUARD) or 0.0) > others:
            raise ValueError(
                f"{NAME}: a pipeline below the floor could be kept as the best one. Add {GUARD} = "
                f"{1.5 * others or 1:.2g} to [training.score_weights]: more than all other weights together."
            )
        if self.action == "stop" and not self.patience:
            raise ValueError(f'{NAME}: action = "stop" needs [training] patience; max_steps will do')
        if self.action == "rollback" and not hasattr(self.pipe, "optimizer"):
            raise ValueError(
                f'{NAME}: action = "rollback" works on spigot_parser and spigot_sdp, not on '
                f"{type(self.pipe).__name__}"
            )

    def _guarded_score(self, examples, **options) -> dict[str, Any]:
        scores = self._scorer(examples, **options)
        if scores.get(self.metric) is None:
            raise ValueError(
                f"{NAME}: there is no {self.metric} to guard. Does the dev corpus have documents with gold "
                f"annotation for '{self.pipe.name}'? (diffdecode.MixedCorpus.v1 joins corpora.)"
            )
        return scores | {GUARD: 0.0 if scores[self.metric] >= self.floor else -1.0}

    def check(self, info: dict[str, Any]) -> None:
        """Act on an evaluation, after spaCy has saved what it made of it.

        Args:
            info: what the training loop tells its logger.
        """
        value = info["other_scores"][self.metric]
        self._history.append(value)
        if value >= self.floor:
            self._good_step = f"step {info['step']}"
            if self.action == "rollback":
                self._good = self._snapshot()
            return
        self._discard_best(info)
        done = {"report": self._report, "stop": self._stop, "rollback": self._rollback}[self.action](info)
        below = f"{self.metric} {100 * value:.2f} is below the floor of {100 * self.floor:.2f}"
        self._say(Printer(no_print=True).warn(f"Step {info['step']}: {below}{done}"))

    def _discard_best(self, info: dict[str, Any]) -> None:
        """Remove what has just been saved as the best of evaluations that were all below the floor."""
        if info["score"] == max(info["checkpoints"])[0] and info.get("output_path"):
            shutil.rmtree(Path(info["output_path"]).parent / DIR_MODEL_BEST, ignore_errors=True)

    def _report(self, info: dict[str, Any]) -> str:
        return ""

    def _stop(self, info: dict[str, Any]) -> str:
        # The loop looks for the best of these checkpoints, and ends when that is `patience` steps ago.
        info["checkpoints"].append((float("inf"), info["step"] - self.patience))
        return f": training stops; the last one above was at {self._good_step}"

    def _rollback(self, info: dict[str, Any]) -> str:
        self.pipe.close_batch()
        self._good.restore(self.pipe.optimizer)
        done = f": '{self.pipe.name}' is what it was at {self._good_step}, the optimizer's state included"
        if self.backoff != 1:
            self.pipe.step_size *= self.backoff
            done += f"; its learning rate is {self.pipe.step_size:g} of the others' now"
        return done

    def _snapshot(self) -> Snapshot:
        return Snapshot(self._models, self.pipe.optimizer)

    def finish(self) -> None:
        """Give the component its own scorer back, and sum up."""
        self.pipe.scorer = self._scorer
        if self._history:
            scores = [100 * value for value in self._history]
            below = sum(value < self.floor for value in self._history)
            summary = (
                f"{self.metric} of '{self.pipe.name}': {scores[0]:.2f} at first, {scores[-1]:.2f} at last; "
                f"{below} of {len(scores)} evaluations below the floor"
            )
            if below == len(scores):
                summary += f", so there is no {DIR_MODEL_BEST}"
            self._say(Printer(no_print=True).info(summary))


def _shared_encoders(nlp: Language, component: str) -> list:
    """Models of the components that this one listens to, frozen ones left out."""
    return [
        pipe.model
        for name, pipe in nlp.pipeline
        if isinstance(pipe, ListenedToComponent) and component in pipe.listening_components
    ]
