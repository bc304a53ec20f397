"""One spelling of all estimators: ``reinmax``, ``st,tau=1.3``, ``gumbel_rao,tau=0.5,samples=10``."""

import ast
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from diffdecode.categorical import ESTIMATORS, draw, reinforce, rloo, sample, unbiased_reinmax

SCORE_FUNCTION = {"reinforce", "rloo"}


@dataclass(frozen=True)
class Method:
    """An estimator and its options, from its spelling on the command line."""

    name: str
    options: dict

    @classmethod
    def parse(cls, spelling: str) -> "Method":
        name, *pairs = spelling.split(",")
        if name not in SCORE_FUNCTION | {"unbiased_reinmax"} | set(ESTIMATORS):
            raise ValueError(
                f"unknown method {name!r}; there are: {', '.join(ESTIMATORS)}, reinforce, rloo, "
                "unbiased_reinmax"
            )
        options = {}
        for pair in pairs:
            key, _, value = pair.partition("=")
            options[key] = value if value == "p" else ast.literal_eval(value)
        return cls(name, options)

    def expected_loss(self, logits: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Losses whose gradient with respect to ``logits`` is the estimate.

        Args:
            logits: ``[B, n, V]``, n independent choices per instance.
            loss_of: from decisions ``[K, B, n, V]`` to losses ``[K, B]``.

        Returns:
            ``[B]``, the mean over the K samples.
        """
        if self.name == "unbiased_reinmax":
            return unbiased_reinmax(logits, loss_of)
        if self.name in SCORE_FUNCTION:
            index, log_probs = draw(logits, self.options.get("samples", 1))
            losses = loss_of(F.one_hot(index, logits.shape[-1]).to(logits.dtype))
            return {"reinforce": reinforce, "rloo": rloo}[self.name](losses, log_probs.sum(-1)).mean(0)
        decision = sample(logits, self.name, **self.options).one_hot
        return loss_of(decision if self.name == "reinmax_loo" else decision[None]).mean(0)
