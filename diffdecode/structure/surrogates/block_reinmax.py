"""Block ReinMax: the second-order term of structured ReinMax within each word's candidate heads only."""

from dataclasses import dataclass

from diffdecode.structure.surrogates.base import Surrogate, register


@register("block_reinmax")
@dataclass(frozen=True)
class BlockReinMax(Surrogate):
    """``dL/ds = Sigma g + 1/2 blk[(z - mu)(z - mu)' - Sigma] g``, for trees; ``g = dL/dz``.

    blk keeps the covariances among the candidate heads of one word. Unbiased for linear losses; of a
    quadratic one it corrects what happens within a word. Its variance hardly grows with the sentence.
    """

    def decide(self, structure, scores, generator):
        return (structure.sample(scores, generator),)

    def gradient(self, structure, scores, z, g):
        if z.dim() != 3:
            raise ValueError("block_reinmax needs one block of candidate heads a word: trees, not graphs")
        mu = structure.marginals(scores)
        deviation = z - mu
        # A word has one head, so its block of Sigma is diag(mu) - mu mu'.
        within = mu * (g - (mu * g).sum(-1, keepdim=True))
        sampled = deviation * (deviation * g).sum(-1, keepdim=True)
        return structure.covariance_product(scores, g) + (sampled - within) / 2
