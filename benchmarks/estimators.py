"""Time and memory of each gradient estimator beside the cheapest public implementation of it.

    python benchmarks/estimators.py [--shape 3000 10] [--repeats 50] [--threads 1] [--peers FOLDER]

One process; the two of a pair take turns, and with one thread CPU time is what counts, because machines are
busy.  A call is sample, forward and backward of sum(one_hot * weight).  Public implementations: PyPI
``reinmax`` (``pip install --no-deps reinmax``, or ``--target FOLDER`` and ``--peers FOLDER``) and
``torch.nn.functional.gumbel_softmax``.  The others are not packaged: "formula" is our plain transcription of
the published formula with autograd.
"""

import argparse
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from diffdecode.categorical import sample


def replace_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """Value forward, gradient of the surrogate backward."""
    return surrogate + (value - surrogate).detach()


def multinomial_one_hot(probs: Tensor) -> Tensor:
    index = torch.multinomial(probs.detach(), 1, replacement=True)
    return torch.zeros_like(probs).scatter_(-1, index, 1.0)


def st_formula(logits: Tensor, tau: float) -> Tensor:
    chosen = multinomial_one_hot(logits.softmax(-1))
    return replace_gradient(chosen, (logits / tau).softmax(-1))


def gapped_st_formula(logits: Tensor, tau: float, gap: float = 1.0) -> Tensor:
    with torch.no_grad():
        chosen = multinomial_one_hot(logits.softmax(-1))
        top = logits.max(-1, keepdim=True).values
        lift = (top - logits) * chosen
        push = (logits - top + gap).clamp(min=0) * (1 - chosen)
    return replace_gradient(chosen, ((logits + lift - push) / tau).softmax(-1))


def gumbel_rao_formula(logits: Tensor, tau: float, samples: int) -> Tensor:
    with torch.no_grad():
        chosen = multinomial_one_hot(logits.softmax(-1))
        noise = torch.empty(samples, *logits.shape).exponential_()
        weights = logits.exp()
        winning = (noise * chosen).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
        shift = -(noise / weights * (1 - chosen) + winning).log() - logits
    return replace_gradient(chosen, ((logits + shift) / tau).softmax(-1).mean(0))


def pairs() -> list[tuple[str, str, callable, callable]]:
    """(method, name of the public one, ours, public)."""
    found = [
        ("st", "formula", lambda x: sample(x, "st").one_hot, lambda x: st_formula(x, 1.0)),
        ("st tau=1.3", "formula", lambda x: sample(x, "st", 1.3).one_hot, lambda x: st_formula(x, 1.3)),
        (
            "gumbel_soft",
            "F.gumbel_softmax",
            lambda x: sample(x, "gumbel_soft", 0.5).one_hot,
            lambda x: F.gumbel_softmax(x, 0.5),
        ),
        (
            "st_gumbel",
            "F.gumbel_softmax(hard)",
            lambda x: sample(x, "st_gumbel", 0.5).one_hot,
            lambda x: F.gumbel_softmax(x, 0.5, hard=True),
        ),
        (
            "gapped_st",
            "formula",
            lambda x: sample(x, "gapped_st", 0.7).one_hot,
            lambda x: gapped_st_formula(x, 0.7),
        ),
    ]
    found += [
        (
            f"gumbel_rao K={K}",
            "formula",
            lambda x, K=K: sample(x, "gumbel_rao", 0.5, samples=K).one_hot,
            lambda x, K=K: gumbel_rao_formula(x, 0.5, K),
        )
        for K in (10, 100)
    ]
    try:
        from reinmax import reinmax
    except ImportError:
        print("PyPI reinmax is not installed: its two rows are left out")
        return found
    return [
        *found,
        ("reinmax", "PyPI reinmax", lambda x: sample(x, "reinmax").one_hot, lambda x: reinmax(x, 1.0)[0]),
        (
            "reinmax tau=1.3",
            "PyPI reinmax",
            lambda x: sample(x, "reinmax", 1.3).one_hot,
            lambda x: reinmax(x, 1.3)[0],
        ),
    ]


def call(method, logits: Tensor, weight: Tensor) -> None:
    logits = logits.detach().requires_grad_()
    (method(logits) * weight).sum().backward()


def saved_floats(method, logits: Tensor) -> float:
    """Memory that autograd keeps for the backward pass, in multiples of the logits; shared storage once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = method(logits.detach().requires_grad_())
    del result
    return sum(kept.values()) / (logits.numel() * logits.element_size())


def time_pair(ours, public, logits: Tensor, repeats: int) -> tuple[float, float, float]:
    """Median milliseconds of both, called in turns, and the median of the ratios of neighbours."""
    # One thread: CPU time, which other processes of the machine hardly touch.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    weight = torch.randn_like(logits)
    times = {ours: [], public: []}
    for _ in range(repeats + 2):
        for method, taken in times.items():
            start = clock()
            call(method, logits, weight)
            taken.append(1e3 * (clock() - start))
    mine, theirs = (taken[2:] for taken in times.values())
    ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
    return statistics.median(mine), statistics.median(theirs), ratio


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--shape", type=int, nargs="+", default=[3000, 10], help="of the logits, categories last"
    )
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", help="folder with the public packages (pip install --target)")
    parser.add_argument("--skip", nargs="*", default=[], help="methods to leave out, e.g. 'gumbel_rao K=100'")
    options = parser.parse_args(argv)
    if options.peers:
        sys.path.append(options.peers)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    logits = torch.randn(*options.shape)
    print(
        f"logits {options.shape} float32, CPU, {options.threads} thread(s), torch {torch.__version__}, ",
        end="",
    )
    print(f"median of {options.repeats} calls of forward + backward; saved = multiples of the logits")
    print(
        f"{'method':18} {'ours ms':>9} {'public ms':>10} {'ratio':>6} {'saved':>7} {'public':>7}  public is"
    )
    for name, public_name, ours, public in pairs():
        if name in options.skip:
            continue
        mine, theirs, ratio = time_pair(ours, public, logits, options.repeats)
        memory = saved_floats(ours, logits), saved_floats(public, logits)
        print(f"{name:18} {mine:9.3f} {theirs:10.3f} {ratio:6.2f}", end="")
        print(f" {memory[0]:7.2f} {memory[1]:7.2f}  {public_name}", flush=True)


if __name__ == "__main__":
    main()
