"""What a gradient estimator is, and the registry of their names.

To add one: a file in this folder that registers an ``Estimator``, and a test.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from diffdecode.registry import Registry


@dataclass(frozen=True)
class Estimator:
    """A choice of one among V categories, with its gradient.

    Attributes:
        function: from float32 or float64 scores ``[..., V]`` (-inf = impossible) and keyword options to the
            choice ``[..., V]`` with its gradient, and softmax(scores) if that was computed (else ``None``).
            Its keywords are the options that ``sample`` accepts for it; its docstring has formula, source and
            temperature.
        hard: a category is chosen, and not a mixture of categories.
        gives_gradient: the scores get a gradient.
        index_has_k: K categories are chosen at once: the choice, and a given ``index``, have a leading K.
        noise_has_k: a given ``noise`` has a leading K.
        alphas: from ``tau`` to the inverse temperatures of all softmaxes that are mixed, by the choice or by
            its gradient, if these depend on nothing else but one noise: then the choice among all categories
            is, up to the probability outside, that among the few best and those drawn. ``None`` if not.
        perturbs: these softmaxes are of scores with Gumbel noise.
    """

    function: Callable[..., tuple[Tensor, Tensor | None]]
    hard: bool = True
    gives_gradient: bool = True
    index_has_k: bool = False
    noise_has_k: bool = False
    alphas: Callable[[float], tuple[float, ...]] | None = None
    perturbs: bool = False

    @property
    def fusable(self) -> bool:
        """Whether the choice can be made among the few best categories."""
        return self.alphas is not None

    @functools.cached_property
    def options(self) -> dict[str, object]:
        """Names of the keyword options, with their defaults."""
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}


ESTIMATORS: Registry[Estimator] = Registry("gradient estimator")
