"""SPIGOT (Peng, Thomson and Smith, ACL 2018, section 2.2): pretend to update z, and project it back."""

from dataclasses import dataclass

from torch import Tensor

from diffdecode.structure.surrogates.base import Structure, Surrogate, inner, register, require_positive


@register("spigot")
@dataclass(frozen=True)
class Spigot(Surrogate):
    """``dL/ds = z - proj(z - eta dL/dz)``, equation 4. Where the update stays inside, that is eta dL/dz.

    Attributes:
        eta: the step size, or ``"clip"`` for ``min(1, max_norm / |dL/dz|)`` per sentence, which is what the
            authors' released code does in place of a step size.
        max_norm: norm at which ``"clip"`` begins; the released code uses 1 for joint parsing and 5/32 for
            sentiment.
        polytope: ``"relaxed"`` for P_DEP (equation 5) and P_SDP (equation 6); ``"exact"`` for the hull of the
            structures themselves; for graphs also ``"sequential"``, the released code's way to P_SDP.
    """

    eta: float | str = 1.0
    max_norm: float = 1.0
    polytope: str = "relaxed"

    def __post_init__(self) -> None:
        if self.eta != "clip":
            require_positive("eta", self.eta)
        require_positive("max_norm", self.max_norm)

    def gradient(self, structure: Structure, scores: Tensor, z: Tensor, g: Tensor, *kept: Tensor) -> Tensor:
        update = z - self.step_size(g) * g  # equation 4a
        update = update.masked_fill(~structure.possible(scores), -float("inf"))
        return z - structure.project(update, self.polytope, near=z)  # equations 4b and 4c

    def step_size(self, g: Tensor) -> float | Tensor:
        """``eta``, or with ``"clip"`` one number a sentence, shaped to multiply ``g``."""
        if isinstance(self.eta, str):
            return (self.max_norm / inner(g, g).sqrt()).clamp(max=1.0)
        return self.eta


@register("spigot_exact")
@dataclass(frozen=True)
class ExactSpigot(Spigot):
    """SPIGOT that projects onto the hull of the structures, which footnote 3 leaves to future work."""

    polytope: str = "exact"
