"""What a surrogate gradient is, the structures it works on, and the node that puts both into a graph.

A decision ``z = argmax <s, z>`` (Peng, Thomson and Smith, ACL 2018, equation 1) has no useful gradient. A
surrogate says what goes forward in place of ``z`` and what goes back in place of ``dL/ds``. It is written
once for every structure: scores, structures and gradients are tensors ``[B, ...]`` with one entry per part.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffdecode.checks import Seen
from diffdecode.moves import moved
from diffdecode.registry import Registry

SURROGATES: Registry[type["Surrogate"]] = Registry("surrogate")
"""Name to class."""

register = SURROGATES.register
"""Class decorator, ``@register("name")``: users can ask for this surrogate by its name."""


class Structure(ABC):
    """A set of structures (trees, graphs) for a batch of sentences, as vertices ``[B, ...]`` of 0 and 1."""

    @abstractmethod
    def possible(self, scores: Tensor) -> Tensor:
        """Bool ``[B, ...]``: parts that exist and are not forbidden by -inf."""

    @abstractmethod
    def argmax(self, scores: Tensor) -> Tensor:
        """The best structure, 0 and 1 in the dtype of ``scores``."""

    @abstractmethod
    def sample(self, scores: Tensor, generator: torch.Generator | None) -> Tensor:
        """An exact sample of ``p(z) ∝ exp <s, z>``."""

    @abstractmethod
    def marginals(self, scores: Tensor) -> Tensor:
        """``mu = E z`` under that distribution."""

    @abstractmethod
    def covariance_product(self, scores: Tensor, vector: Tensor) -> Tensor:
        """``Sigma v`` with ``Sigma = Cov z``, the Jacobian of the marginals."""

    @abstractmethod
    def project(self, point: Tensor, polytope: str, near: Tensor) -> Tensor:
        """The nearest point of a polytope that holds all structures; parts at -inf stay 0.

        Args:
            polytope: ``"relaxed"`` (equations 5 and 6), ``"exact"`` (the hull of the structures), or another
                name that the structure knows.
            near: the structure to start an iteration from.
        """


class Surrogate(ABC):
    """One estimator; its dataclass fields are the options that a user can set."""

    gives_gradient: ClassVar[bool] = True
    """Whether anything goes back; otherwise it is exactly 0."""

    trees_only: ClassVar[bool] = False
    """Whether it takes structures for trees: every word has one block of candidate heads."""

    @property
    def hard(self) -> bool:
        """Whether a structure goes forward, and not a mixture of structures."""
        return True

    def decide(
        self, structure: Structure, scores: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        """What goes forward.

        Args:
            structure: the structures that there are. scores: ``[B, ...]``. generator: of random numbers.

        Returns:
            ``z``, shaped as ``scores``, and after it any tensors that :meth:`gradient` needs besides.
        """
        return (structure.argmax(scores),)

    @abstractmethod
    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        """What goes back as ``dL/ds``.

        Args:
            structure, scores: as in :meth:`decide`.
            z: what went forward, ``[B, ...]`` like all tensors here.
            g: ``dL/dz``, 0 on impossible parts.
            kept: what :meth:`decide` returned after ``z``.
        """


def make_surrogate(surrogate: str | Surrogate, **options: Any) -> Surrogate:
    """A surrogate from its name and options.

    Raises:
        ValueError: no surrogate has this name, or an option has an impossible value.
        TypeError: the surrogate has no such option.
    """
    if isinstance(surrogate, Surrogate):
        if options:
            raise TypeError(f"options {sorted(options)} belong to a name, not to a surrogate made already")
        return surrogate
    made = SURROGATES[surrogate]
    known = inspect.signature(made).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"surrogate {surrogate!r} has no option {unknown[0]!r}; it has {list(known)}")
    return made(**options)


def structured_argmax(
    scores: Tensor, structure: Structure, surrogate: Surrogate, generator: torch.Generator | None = None
) -> Tensor:
    """``surrogate``'s decision for ``scores [B, ...]``, with its gradient; impossible parts get exactly 0."""
    return _StructuredArgmax.apply(scores, structure, surrogate, generator)


class _StructuredArgmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        structure: Structure,
        surrogate: Surrogate,
        generator: torch.Generator | None,
    ) -> Tensor:
        scores = scores.detach()
        z, *kept = surrogate.decide(structure, scores, generator)
        ctx.save_for_backward(scores, z, *kept)
        ctx.structure, ctx.surrogate, ctx.seen = structure, surrogate, Seen()
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        scores, z, *kept = ctx.saved_tensors
        possible = ctx.structure.possible(scores)
        g = torch.where(possible, g, 0)
        gradient = ctx.seen.run(ctx.surrogate.gradient, ctx.structure, scores, z, g, *kept)
        return torch.where(possible, gradient, 0), None, None, None


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of every row of the batch, shaped to multiply ``[B, ...]``."""
    return (a * b).sum(tuple(range(1, a.dim())), keepdim=True)


def noise(
    distribution: Callable[..., Tensor],
    shape: Sequence[int],
    like: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Random numbers by ``torch.rand`` or ``torch.randn`` in the dtype and on the device of ``like``."""
    device = like.device if generator is None else generator.device
    return moved(distribution(shape, generator=generator, device=device, dtype=like.dtype), like.device)


def require_positive(name: str, value: Any) -> None:
    """``ValueError`` unless ``value`` is a number above 0."""
    if isinstance(value, (str, bool)) or not value > 0:
        raise ValueError(f"{name} must be a number above 0, got {value!r}")
