"""Components of spaCy's kind with a learning rate of their own, beside others of one optimizer."""

from spacy.pipeline import TrainablePipe
from thinc.api import Optimizer

from spacy_components.ml.thinc_glue.parameters import Steps


class OwnRate(TrainablePipe):
    """A component whose ``step_size`` multiplies the learning rate.

    A pipeline has one optimizer, whose rate may be far too small for a new layer: that of a transformer is
    (see ``step_size`` of ``spigot_parser``).
    """

    step_size: float = 1.0

    def set_step_size(self, step_size: float) -> None:
        """Change it.

        Args:
            step_size: the factor.

        Raises:
            ValueError: it is not above 0.
        """
        if not step_size > 0:
            raise ValueError(f"'{self.name}': step_size must be above 0, got {step_size!r}")
        self.step_size = step_size

    def finish_update(self, sgd: Optimizer) -> None:
        """Step all parameters that have a gradient.

        Args:
            sgd: the optimizer.
        """
        # nlp.rehearse gives a function that only collects gradients.
        own = isinstance(sgd, Optimizer) and self.step_size != 1
        self.model.finish_update(Steps(sgd, set(), self.step_size) if own else sgd)
