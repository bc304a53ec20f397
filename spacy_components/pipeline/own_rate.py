"""Components of spaCy's kind with a learning rate of their own, beside others of one optimizer."""

from typing import Any

from spacy.pipeline import TrainablePipe
from thinc.api import Optimizer

from spacy_components.ml.thinc_glue.parameters import Steps, require_step_size
from spacy_components.settings import named


class OwnRate(TrainablePipe):
    """A component whose ``step_size`` multiplies the learning rate.

    A pipeline has one optimizer, whose rate may be far too small for a new layer: that of a transformer is
    (see ``step_size`` of ``spigot_parser``).
    """

    def __init__(self, *args: Any, step_size: float = 1.0, **kwargs: Any) -> None:
        """Initialize what comes next in the order of bases, and keep the factor.

        Args:
            *args: of that class.
            step_size: the factor.
            **kwargs: of that class.

        Raises:
            ValueError: a factor that is not above 0.
        """
        super().__init__(*args, **kwargs)
        with named(self.name):
            require_step_size(step_size)
        self.step_size = step_size

    def finish_update(self, sgd: Optimizer) -> None:
        """Step all parameters that have a gradient.

        Args:
            sgd: the optimizer.
        """
        self.model.finish_update(Steps(sgd, set(), self.step_size))
