"""A decoder's two V-sized layers, fused over the steps of a search.

Plain autograd makes a step over a large vocabulary expensive in five ways, and each has an exact remedy:

* a softmax over V for the loss and another for the choice: here one set of logits serves both, and only the
  log-probabilities of the m best candidates (and of the gold word) ever leave it;
* their gradient as a chain of ``[R, V]`` tensors: ``d logits = -softmax * sum(g)``, plus g at the few chosen
  places, is built in place, in the memory that held the logits, in the end and for all steps at once;
* a product of ``d logits`` with the weights at every step, for the few rows of a step: its dense part is a
  multiple of ``softmax @ W``, which does not depend on any gradient. The first step of the backward pass
  computes it for all steps at once; what is left are a few rows of W;
* a dense ``[V, H]`` gradient of the weights at every step: the steps leave what makes their d logits, and
  an ``Anchor``, on which every step depends and which therefore runs last in the backward pass, multiplies
  all of them with the hidden vectors at once;
* a product of weights ``[R, V]`` with the embedding ``[V, d]``: here a mixture of m gathered rows.

The results are ordinary tensors, to be used in any loss, but the backward pass can run only once.
"""

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from diffdecode.sequence.anchor import Anchor
from diffdecode.sequence.best_candidates import best_candidates
from diffdecode.sequence.few_rows import FewRows
from diffdecode.sequence.precision import full_precision
from diffdecode.sequence.race import race
from diffdecode.sequence.step_decoder import LinearStepDecoder

# Rows of a product over all steps: enough to be efficient, and few enough to need little memory in between.
AT_ONCE = 512


class Prediction(NamedTuple):
    """What a step shows of its distribution over V.

    Attributes:
        best: ``[R, m]`` log-probabilities of the best candidates, best first; with a race ``[R, m + n]``, the
            first n arrivals of the others behind them (``-inf`` where there were no more).
        symbols: their ids, same shape.
        rest: ``[R]`` probability of all candidates that are not shown, rounded up; no gradient.
        outside: how many candidates are not shown.
        gold: ``[R]`` log-probabilities of the words asked for, or ``None``.
        log_z: ``[R]`` log-normalisers: a log-probability and ``log_z`` are the logit.
        cut: ``[R]`` no candidate that is not shown has a larger log-probability; no gradient.
        noise: ``[R, m + n]`` the race's Exp(1) variates of those shown, or ``None``.
        last: ``[R]`` when the last of those shown arrived, with probabilities as weights, or ``None``.
    """

    best: Tensor
    symbols: Tensor
    rest: Tensor
    outside: int
    gold: Tensor | None
    log_z: Tensor
    cut: Tensor
    noise: Tensor | None = None
    last: Tensor | None = None


class OutputLayer:
    """Output layer and embedding of a decoder, for ``rows`` predictions in all.

    Args:
        decoder: its ``output_weight [V, H]``, ``output_bias [V]`` and ``embedding [V, d]``.
        rows: how many rows all calls of ``predict`` together will have; in training, memory for ``rows * V``
            numbers is taken.
        banned: ids ``[n]`` that are no candidates. They still count in the normalisation.
    """

    def __init__(self, decoder: LinearStepDecoder, rows: int, banned: Tensor | None = None):
        weight, bias, embedding = decoder.output_weight, decoder.output_bias, decoder.embedding
        self.tape = _Tape(weight.detach(), None if bias is None else bias.detach(), embedding.detach(), rows)
        self.anchor = Anchor.apply(self.tape.spent, weight, bias, embedding)
        self.banned = banned if banned is not None and banned.numel() else None
        self.candidates = weight.size(0) - (0 if self.banned is None else self.banned.numel())

    def predict(
        self,
        hidden: Tensor,
        m: int,
        gold: Tensor | None = None,
        arrivals: int = 0,
        generator: torch.Generator | None = None,
    ) -> Prediction:
        """Predict from ``hidden [R, H]``; show the m best candidates, and ``gold [R]``.

        Args:
            hidden: ``[R, H]``.
            m: how many of the best are shown.
            gold: ``[R]`` ids, or ``None``.
            arrivals: n of the others that are shown, too, as they arrive in a race (``race``), or as many as
                there are; 0 holds no race.
            generator: source of the race's randomness, on the decoder's device.

        Raises:
            ValueError: more rows than announced, or m not between 1 and the number of candidates.
        """
        if not 1 <= m <= self.candidates:
            raise ValueError(f"m={m} must be between 1 and the number of candidates, {self.candidates}")
        hidden = hidden.to(self.tape.weight.dtype)
        keep = torch.is_grad_enabled() and (hidden.requires_grad or self.anchor.requires_grad)
        place = self.tape.claim(hidden.detach()) if keep else None
        arrivals = min(arrivals, self.candidates - m)
        best, symbols, rest, gold, log_z, cut, noise, last = _Predict.apply(
            hidden, self.anchor, self.tape, place, m, gold, self.banned, arrivals, generator
        )
        outside = self.candidates - m - arrivals
        rest = rest if outside else torch.zeros_like(rest)
        return Prediction(best, symbols, rest, outside, gold, log_z, cut, noise, last)

    def mix(self, symbols: Tensor, weights: Tensor) -> Tensor:
        """Mixtures of embeddings ``[B, K, d]``, with ``weights [B, K, M]`` of ``symbols [B, M]``."""
        return _Mix.apply(weights.to(self.tape.embedding.dtype), self.anchor, self.tape, symbols)

    def embed(self, symbols: Tensor) -> Tensor:
        """Embeddings ``[..., d]`` of ``symbols [...]``."""
        one = torch.ones(symbols.numel(), 1, 1, device=symbols.device)
        return self.mix(symbols.reshape(-1, 1), one).view(*symbols.shape, self.tape.embedding.size(1))


class Mixture(NamedTuple):
    """A mixture of embeddings in the backward pass.

    Attributes:
        symbols: ``[B, M]`` ids.
        weights: ``[B, K, M]``.
        grad: ``[B, K, d]`` gradient of the result.
    """

    symbols: Tensor
    weights: Tensor
    grad: Tensor


class Finished(NamedTuple):
    """The gradient of some rows' logits: ``dense * softmax``, and more of some words.

    Attributes:
        place: where the logits are.
        dense: ``[R]``.
        words: ``[R, n]`` ids, or ``None``.
        grads: ``[R, n]`` of these words, or ``None``.
    """

    place: slice
    dense: Tensor
    words: Tensor | None
    grads: Tensor | None

    @property
    def shape(self) -> int:
        """n."""
        return 0 if self.words is None else self.words.size(1)


class _Tape:
    """What the steps leave for the anchor: hidden vectors, gradients of logits, gradient of the embedding."""

    def __init__(self, weight: Tensor, bias: Tensor | None, embedding: Tensor, rows: int):
        self.weight, self.bias, self.embedding = weight, bias, embedding
        self.project = FewRows(weight, bias)
        self.rows = rows
        self.used = 0
        self.logits: Tensor | None = None  # [rows, V]: exp(logits - max), in the end their gradient
        self.mass: Tensor | None = None  # [rows]: sums of exp(logits - max)
        self.hidden: Tensor | None = None  # [rows, H]
        self.expected: Tensor | None = None  # [used, H]
        self.finished: list[Finished] = []
        self.mixtures: list[Mixture] = []
        self.is_spent = False

    def claim(self, hidden: Tensor) -> slice:
        """A place on the tape for the logits of ``hidden [R, H]``."""
        rows, dtype = hidden.size(0), torch.promote_types(self.weight.dtype, torch.float32)
        if self.logits is None or self.hidden is None:
            self.logits = hidden.new_empty(self.rows, self.weight.size(0), dtype=dtype)
            self.mass = hidden.new_empty(self.rows, dtype=dtype)
            self.hidden = hidden.new_empty(self.rows, hidden.size(1))
        place = slice(self.used, self.used + rows)
        if place.stop > self.rows:
            raise ValueError(f"predictions for {place.stop} rows, but only {self.rows} were announced")
        self.used = place.stop
        self.hidden[place] = hidden
        return place

    def expected_weights(self, place: slice) -> Tensor:
        """``softmax @ weight`` ``[R, H]`` of a place: the output embedding that its rows expect.

        Asked for before the logits of the place are replaced by their gradient; the first time, of all
        places.
        """
        if self.expected is None:
            assert self.logits is not None and self.mass is not None
            self.project.forget()  # no step predicts any more
            self.expected = self.weight.new_empty(self.used, self.weight.size(1))
            for start in range(0, self.used, AT_ONCE):
                some = slice(start, min(start + AT_ONCE, self.used))
                if self.logits.dtype == self.weight.dtype:
                    torch.mm(self.logits[some], self.weight, out=self.expected[some])
                    self.expected[some] /= self.mass[some, None]
                else:  # normalised first: half precision does not reach far
                    shares = self.logits[some] / self.mass[some, None]
                    self.expected[some] = shares.to(self.weight.dtype) @ self.weight
        return self.expected[place]

    def check_unspent(self, place: slice | None = None) -> None:
        if self.is_spent or any(one.place == place for one in self.finished):
            raise RuntimeError("the backward pass of a fused search can run only once: search again")

    def spent(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of weight, bias and embedding; nothing is left."""
        weight, bias = self.output_gradients()
        # The logits go before the embedding's gradient comes, which is as large as the weight's.
        self.logits = self.mass = self.hidden = self.expected = None
        self.is_spent = True
        embedding = self.embedding_gradient()
        self.mixtures.clear()
        return weight, bias, embedding

    def output_gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of weight and bias, in one product over all steps that had a gradient."""
        if self.logits is None or self.hidden is None or self.mass is None or not self.finished:
            return None, None
        done = sorted(self.finished, key=lambda one: one.place.start)
        if sum(one.place.stop - one.place.start for one in done) == self.used:
            logits, hidden, mass = (
                all_rows[: self.used] for all_rows in (self.logits, self.hidden, self.mass)
            )
        else:
            logits, hidden, mass = (
                torch.cat([all_rows[one.place] for one in done])
                for all_rows in (self.logits, self.hidden, self.mass)
            )
        logits.mul_((torch.cat([one.dense for one in done]) / mass)[:, None])
        start = 0
        for _, group in itertools.groupby(done, key=lambda one: one.shape):
            alike = list(group)
            rows = slice(start, start + sum(len(one.dense) for one in alike))
            shown = [
                (one.words, one.grads) for one in alike if one.words is not None and one.grads is not None
            ]
            if shown:
                words, grads = (torch.cat(parts) for parts in zip(*shown))
                logits[rows].scatter_add_(1, words, grads)
            start = rows.stop
        weight = logits.t() @ hidden.to(logits.dtype)
        bias = None if self.bias is None else logits.sum(0).to(self.bias.dtype)
        return weight.to(self.weight.dtype), bias

    def embedding_gradient(self) -> Tensor | None:
        """Gradient of the embedding: of each mixture, its weights' share for each of its words."""
        if not self.mixtures:
            return None
        total = torch.zeros_like(self.embedding)
        for _, group in itertools.groupby(self.mixtures, key=lambda mixture: mixture.weights.shape):
            alike = list(group)
            few = max(1, AT_ONCE // max(1, len(alike[0].weights)))
            for start in range(0, len(alike), few):
                symbols, weights, grad = (torch.cat(part) for part in zip(*alike[start : start + few]))
                by_word = torch.bmm(weights.transpose(1, 2), grad)  # [B, M, d]
                total.index_add_(0, symbols.flatten(), by_word.flatten(0, 1))
        return total


class _Predict(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        anchor: Tensor,
        tape: _Tape,
        place: slice | None,
        m: int,
        gold: Tensor | None,
        banned: Tensor | None,
        arrivals: int,
        generator: torch.Generator | None,
    ) -> tuple[Tensor | None, ...]:
        logits = tape.project(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        wanted = None if gold is None else logits.gather(1, gold[:, None])[:, 0]
        forbidden = logits[:, :0] if banned is None else logits[:, banned]
        if banned is not None:
            logits.index_fill_(1, banned, -torch.inf)
        best, symbols = best_candidates(logits, m)
        top = best[:, :1] if banned is None else torch.maximum(best[:, :1], forbidden.amax(1, keepdim=True))

        weights = logits if place is None or tape.logits is None else tape.logits[place]
        torch.sub(logits, top, out=weights).exp_()
        mass = weights.sum(1)
        kept = (best - top).exp().sum(1)
        # The difference of two sums of rounded numbers may be too small by some units in the last place.
        eps = torch.finfo(mass.dtype).eps
        rest = torch.add((mass - kept).clamp_min_(0.0), mass, alpha=16 * eps)
        cut, noise, last = best[:, -1], None, None
        if arrivals:
            drawn = race(weights, symbols, arrivals, generator)
            symbols, noise, last = torch.cat([symbols, drawn.symbols], 1), drawn.noise, drawn.last
            best = torch.cat([best, drawn.weights.log() + top], 1)
            rest = torch.add(drawn.rest, mass, alpha=16 * eps)
        if banned is not None:
            weights[:, banned] = (forbidden - top).exp()
            mass = mass + weights[:, banned].sum(1)
        if place is not None and tape.mass is not None:
            tape.mass[place] = mass

        ctx.tape, ctx.place = tape, place
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(symbols, gold, tape.weight)
        log_z = top[:, 0] + mass.log()
        gold_score = None if wanted is None else wanted - log_z
        rest, cut = rest / mass, cut - log_z
        constants = [symbols, rest, cut]
        if noise is not None and last is not None:
            last = last * mass
            constants += [noise, last]
        ctx.mark_non_differentiable(*constants)
        return best - log_z[:, None], symbols, rest, gold_score, log_z, cut, noise, last

    @staticmethod
    @once_differentiable
    @full_precision
    def backward(
        ctx: Any,
        grad_best: Tensor | None,
        _symbols: Tensor,
        _rest: Tensor,
        grad_gold: Tensor | None,
        grad_log_z: Tensor | None,
        *_constants: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        symbols, gold, weight = ctx.saved_tensors
        tape, place = ctx.tape, ctx.place
        tape.check_unspent(place)
        # d logits = dense * softmax, and grad_best and grad_gold at the symbols shown.
        shown = [] if grad_best is None else [(symbols, grad_best)]
        shown += [] if grad_gold is None else [(gold[:, None], grad_gold[:, None])]
        if not shown and grad_log_z is None:
            return (None,) * 9
        words, grads = (torch.cat(parts, 1) for parts in zip(*shown)) if shown else (None, None)
        dense = grad_log_z
        if grads is not None:
            dense = -grads.sum(1) if dense is None else dense - grads.sum(1)
        assert dense is not None  # one of the three gradients is there
        hidden = None
        if ctx.needs_input_grad[0]:
            factor, expected = dense[:, None].to(weight.dtype), tape.expected_weights(place)
            if words is None or grads is None:
                hidden = factor * expected
            else:
                shares = grads.to(weight.dtype)
                of_words = embedding_bag(words, weight, mode="sum", per_sample_weights=shares)
                hidden = torch.addcmul(of_words, factor, expected)
        tape.finished.append(Finished(place, dense, words, grads))
        return hidden, *(None,) * 8


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, anchor: Tensor, tape: _Tape, symbols: Tensor) -> Tensor:
        ctx.tape = tape
        ctx.save_for_backward(weights, symbols, tape.embedding)
        return torch.bmm(weights, tape.embedding[symbols])

    @staticmethod
    @once_differentiable
    @full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        weights, symbols, embedding = ctx.saved_tensors
        ctx.tape.check_unspent()
        ctx.tape.mixtures.append(Mixture(symbols, weights, grad))
        grad_weights = None
        if ctx.needs_input_grad[0]:
            grad_weights = torch.bmm(grad, embedding[symbols].transpose(1, 2))
        return grad_weights, None, None, None
