"""Whether the components downstream have more to say in a parser than its own annotation has."""

import warnings

import torch
from torch import Tensor

Pairs = list[tuple[Tensor, Tensor | None]]


class GradientBalance:
    """Compares two gradients on the same scores, over many batches, and warns once.

    Where the gradient that comes back through the decisions is far longer than that of the component's own
    annotation, the component turns into a tool of the end task and is lost as a parser. One batch says little
    about that; running means of squared norms, over batches that have both, say it.

    Args:
        name: the component.
    """

    FACTOR = 2.0
    """How many times longer it has to be."""
    BATCHES = 40
    """For so many measured batches at least."""
    EVERY = 4
    """One batch in so many is measured."""
    DECAY = 0.95

    def __init__(self, name: str):
        self._name = name
        self._seen = self._measured = 0
        self._squares = (0.0, 0.0)
        self._warned = False

    def watch(self, own: Pairs, sent: Pairs) -> None:
        """Measure a batch, before its backward pass.

        Args:
            own: losses on the component's own annotation.
            sent: scores, and the gradients on them that came back.
        """
        if self._warned or not own or not sent:
            return
        self._seen += 1
        if self._seen % self.EVERY == 0:
            self._measure([loss for loss, _ in own], *zip(*sent))

    @property
    def ratio(self) -> float:
        """How many times longer the gradient that comes back is; 0 before anything was measured."""
        own, sent = self._squares
        return (sent / own) ** 0.5 if own else 0.0

    def _measure(self, losses: list[Tensor], scores: tuple[Tensor, ...], sent: tuple[Tensor, ...]) -> None:
        own = torch.autograd.grad(losses, scores, retain_graph=True, allow_unused=True)
        new = torch.stack([_squared([g for g in own if g is not None], scores[0]), _squared(sent, scores[0])])
        keep = self.DECAY if self._measured else 0.0
        self._squares = tuple(keep * o + (1 - keep) * n for o, n in zip(self._squares, new.tolist()))
        self._measured += 1
        if self._measured >= self.BATCHES and self.ratio > self.FACTOR:
            self._warned = True
            warnings.warn(
                f"[D004] The gradient that the components downstream send back to '{self._name}' is "
                f"{self.ratio:.1f} times as long as that of its own annotation, over "
                f"{self._measured * self.EVERY} batches: as a parser it will get worse. Give it less weight "
                "(a smaller grad_factor), or choose a surrogate that heeds the parser's confidence "
                "(structured_st, or spigot_eg with a small eta), or have more annotated words in each batch "
                "(the fractions of diffdecode.MixedCorpus.v1).",
                UserWarning,
                stacklevel=2,
            )


def _squared(gradients, like: Tensor) -> Tensor:
    return sum((g.detach().float() ** 2).sum() for g in gradients) + torch.zeros((), device=like.device)
