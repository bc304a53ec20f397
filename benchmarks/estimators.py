"""Time and memory of each gradient estimator beside the cheapest public implementation of it.

    python -m benchmarks.estimators [--shape 3000 10] [--peers FOLDER] [--save]

One process and one thread; the two of a pair take turns, and CPU time is what counts, because machines are
busy.  A call is sample, forward and backward of sum(one_hot * weight).  Public implementations: PyPI
``reinmax`` (``pip install --no-deps reinmax``, or ``--target FOLDER`` and ``--peers FOLDER``) and
``torch.nn.functional.gumbel_softmax``.  The others are not packaged: "formula" is our plain transcription of
the published formula with autograd.
"""

import argparse
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._measure import cpu_medians, save
from diffdecode.categorical import sample

SHAPES = {(3000, 10): 60, (32, 10): 300, (64, 32_000): 12}  # logits, categories last: repeats
BIG = 100_000  # logits above which gumbel_rao with 100 samples is left out


def replace_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """Value forward, gradient of the surrogate backward."""
    return surrogate + (value - surrogate).detach()


def multinomial_one_hot(probs: Tensor) -> Tensor:
    """A sample of each row, as one-hot vectors."""
    index = torch.multinomial(probs.detach(), 1, replacement=True)
    return torch.zeros_like(probs).scatter_(-1, index, 1.0)


def st_formula(logits: Tensor, tau: float) -> Tensor:
    """Straight-through, as its formula."""
    chosen = multinomial_one_hot(logits.softmax(-1))
    return replace_gradient(chosen, (logits / tau).softmax(-1))


def gapped_st_formula(logits: Tensor, tau: float, gap: float = 1.0) -> Tensor:
    """Gapped straight-through, as its formula."""
    with torch.no_grad():
        chosen = multinomial_one_hot(logits.softmax(-1))
        top = logits.max(-1, keepdim=True).values
        lift = (top - logits) * chosen
        push = (logits - top + gap).clamp(min=0) * (1 - chosen)
    return replace_gradient(chosen, ((logits + lift - push) / tau).softmax(-1))


def gumbel_rao_formula(logits: Tensor, tau: float, samples: int) -> Tensor:
    """Gumbel-Rao, as its formula."""
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
    """Forward and backward of one method."""
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


def compare(shape: tuple[int, ...], repeats: int) -> list[dict]:
    """One row per pair: milliseconds and multiples of the logits kept for the backward pass."""
    logits, weight = torch.randn(shape), torch.randn(shape)
    rows = []
    for name, public_name, ours, public in pairs():
        if name.endswith("K=100") and logits.numel() > BIG:
            continue
        steps = {
            "ours": lambda f=ours: call(f, logits, weight),
            "public": lambda f=public: call(f, logits, weight),
        }
        row = {"method": name, "public is": public_name}
        row |= {f"{who} ms": 1e3 * seconds for who, seconds in cpu_medians(steps, repeats).items()}
        row |= {"ours saved": saved_floats(ours, logits), "public saved": saved_floats(public, logits)}
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", type=int, nargs="+", help="of the logits, categories last; default: three")
    parser.add_argument("--repeats", type=int, help="calls per median; default: 12 to 300, by shape")
    parser.add_argument("--peers", help="folder with the public packages (pip install --target)")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/estimators.json")
    options = parser.parse_args(argv)
    if options.peers:
        sys.path.append(options.peers)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shapes = {tuple(options.shape): 50} if options.shape else SHAPES
    results = {}
    for shape, repeats in shapes.items():
        results[str(list(shape))] = rows = compare(shape, options.repeats or repeats)
        print(f"\nlogits {list(shape)} float32, CPU, 1 thread, torch {torch.__version__}: median CPU time of")
        print("forward + backward; saved for backward in multiples of the logits")
        print("method                ours ms  public ms  ratio   saved  public  public is")
        for row in rows:
            ratio = row["ours ms"] / row["public ms"]
            print(f"{row['method']:18} {row['ours ms']:9.3f} {row['public ms']:10.3f} {ratio:6.2f}", end="")
            print(f" {row['ours saved']:7.2f} {row['public saved']:7.2f}  {row['public is']}", flush=True)
    if options.save:
        print(f"saved: {save('estimators', results)}")


if __name__ == "__main__":
    main()
