"""ListOps (Nangia & Bowman 2018) with a latent binary tree: the model decides which neighbours to merge.

    python -m examples.papers.listops                       # $DIFFDECODE_DATA/listops, short expressions
    python -m examples.papers.listops --max-tokens 100 --train 0 --hidden 300 --epochs 20   # full size

A binary TreeLSTM over the tokens without parentheses.  While more than one node is left, every pair of
neighbours is composed and scored, and one pair is chosen by a categorical sample over the scores: it is
merged, the other nodes stay (in the spirit of Choi et al. 2018).  The root is classified into ten values.  In
evaluation the best pair is taken.  ``--methods`` are those with one decision per call, and ``rloo`` and
``reinforce`` (a loss per sampled tree).  References without a choice: ``tree=gold`` merges as the annotated
brackets say, ``tree=left`` always the first two, ``tree=random`` any two.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffdecode.categorical import draw, reinforce, rloo, sample
from examples._shared.commands import one_line_errors
from examples._shared.data import data_folder, read_lines
from examples._shared.pictures import save_curves
from examples._shared.runs import Checkpoint, run_grid
from examples._shared.tables import save_table, spread
from examples.papers._estimators import SCORE_FUNCTION, Method, arguments, prepare, record

TOKENS = {token: i for i, token in enumerate([*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]"])}
TREES = ("tree=gold", "tree=left", "tree=random")
NAME = "examples.papers.listops"
METHODS = [
    "reinmax",
    "reinmax,tau=1.1",
    "st",
    "st_gumbel,tau=0.5",
    "gumbel_rao,tau=0.5,samples=10",
    "gapped_st,tau=0.7",
    "rloo,samples=4",
    *TREES,
]


class Expression(NamedTuple):
    """Token ids (N), the N - 1 gold merges (position of the left node among the nodes left), the value."""

    tokens: list[int]
    merges: list[int]
    value: int


def parse(line: str) -> Expression:
    """``value<TAB>bracketed expression``; every pair of parentheses is one merge of two neighbours."""
    value, text = line.rstrip("\n").split("\t")
    tokens, merges, depth, open_at = [], [], 0, []
    for symbol in text.split():
        if symbol == "(":
            open_at.append(depth)
        elif symbol == ")":
            start = open_at.pop()
            if depth - start == 2:
                merges.append(start)
                depth -= 1
        else:
            tokens.append(TOKENS[symbol])
            depth += 1
    if depth != 1 or len(merges) != len(tokens) - 1:
        raise ValueError(f"not a binary bracketing: {text[:60]}")
    return Expression(tokens, merges, int(value))


def read(path: Path, max_tokens: int, limit: int) -> list[Expression]:
    """The first ``limit`` (0 = all) expressions of at most ``max_tokens`` tokens.

    Raises ValueError for a line that is no expression, with file and number, and if there is no expression.
    """
    found = []
    for number, line in enumerate(read_lines(path.parent, path.name.removesuffix(".gz")), start=1):
        try:
            if sum(symbol not in "()" for symbol in line.split("\t")[1].split()) <= max_tokens:
                found.append(parse(line))
        except (ValueError, LookupError) as error:
            raise ValueError(f"{path}, line {number}: no expression ({error})") from None
        if limit and len(found) == limit:
            break
    if not found:
        raise ValueError(f"{path} has no expression of at most {max_tokens} tokens")
    return found


OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def generated(count: int, max_tokens: int, seed: int) -> list[Expression]:
    """Random expressions by the published recipe: 2 to 5 arguments, a quarter of which are expressions."""
    rng = random.Random(seed)

    def draw(depth: int) -> tuple[str, int]:
        if depth and rng.random() > 0.25:
            digit = rng.randrange(10)
            return str(digit), digit
        operator = rng.choice(list(OPERATORS))
        arguments = [draw(depth + 1) for _ in range(rng.randint(2, 5))]
        text = operator
        for part in [*(text for text, _ in arguments), "]"]:
            text = f"( {text} {part} )"
        return text, OPERATORS[operator]([value for _, value in arguments])

    found: list[Expression] = []
    while len(found) < count:
        text, value = draw(0)
        expression = parse(f"{value}\t{text}")
        if len(expression.tokens) <= max_tokens:
            found.append(expression)
    return found


class Batch(NamedTuple):
    """Tokens ``[B, T]`` (0 as padding), lengths ``[B]``, gold merges ``[B, T - 1]``, values ``[B]``."""

    tokens: Tensor
    lengths: Tensor
    merges: Tensor
    values: Tensor


def batches(expressions: list[Expression], size: int) -> list[Batch]:
    """Expressions of similar length together, in order of length."""
    ordered = sorted(expressions, key=lambda e: len(e.tokens))
    made = []
    for start in range(0, len(ordered), size):
        group = ordered[start : start + size]
        T = len(group[-1].tokens)
        tokens = torch.tensor([e.tokens + [0] * (T - len(e.tokens)) for e in group])
        merges = torch.tensor([e.merges + [0] * (T - len(e.tokens)) for e in group], dtype=torch.int64)
        lengths = torch.tensor([len(e.tokens) for e in group])
        made.append(Batch(tokens, lengths, merges, torch.tensor([e.value for e in group])))
    return made


# A chooser gets scores [B, pairs] (-inf = no pair) and gold merges [B], and returns one-hot decisions.
Chooser = Callable[[Tensor, Tensor], Tensor]


def one_hot_like(index: Tensor, scores: Tensor) -> Tensor:
    """``[B, pairs]`` in the type of the scores, from positions ``[B]``."""
    return F.one_hot(index, scores.shape[1]).to(scores.dtype)


def fixed_chooser(tree: str) -> Chooser:
    """No decision of the model: gold, left or random."""

    def choose(scores: Tensor, gold: Tensor) -> Tensor:
        if tree == "gold":
            return one_hot_like(gold, scores)
        possible = torch.where(scores == -torch.inf, scores, 0.0)
        return sample(possible.detach(), "argmax_st" if tree == "left" else "st").one_hot

    return choose


class TreeLSTM(nn.Module):
    """Latent-tree encoder and classifier."""

    def __init__(self, hidden: int, values: int = 10):
        super().__init__()
        self.leaf = nn.Embedding(len(TOKENS), 2 * hidden)
        self.compose = nn.Linear(2 * hidden, 5 * hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.classify = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, values))

    def parents(self, state: Tensor) -> Tensor:
        """Compositions of all neighbours: nodes ``[B, M, 2 d]`` (h and c) to ``[B, M - 1, 2 d]``."""
        h, c = state.chunk(2, -1)
        gates = self.compose(torch.cat([h[:, :-1], h[:, 1:]], -1))
        i, left, right, o, u = gates.chunk(5, -1)
        c = (
            torch.sigmoid(left + 1) * c[:, :-1]
            + torch.sigmoid(right + 1) * c[:, 1:]
            + torch.sigmoid(i) * u.tanh()
        )
        return torch.cat([torch.sigmoid(o) * c.tanh(), c], -1)

    def forward(self, batch: Batch, choose: Chooser) -> Tensor:
        """Logits of the values ``[B, 10]``."""
        state = self.leaf(batch.tokens)
        for step in range(state.shape[1] - 1):
            unfinished = (batch.lengths - 1 > step)[:, None]
            parents = self.parents(state)
            scores = self.score(parents.chunk(2, -1)[0]).squeeze(-1)
            pairs = torch.arange(scores.shape[1]) < (batch.lengths - 1 - step)[:, None]
            scores = scores.masked_fill(~(pairs | ~unfinished), -torch.inf)
            decision = choose(scores, batch.merges[:, step])
            before = decision.flip(1).cumsum(1).flip(1) - decision  # 1 left of the merge
            after = decision.cumsum(1) - decision  # 1 right of it
            merged = (
                before.unsqueeze(-1) * state[:, :-1]
                + decision.unsqueeze(-1) * parents
                + after.unsqueeze(-1) * state[:, 1:]
            )
            state = torch.where(unfinished.unsqueeze(-1), merged, state[:, :-1])
        return self.classify(state[:, 0].chunk(2, -1)[0])

    def losses(self, batch: Batch, spelling: str) -> Tensor:
        """Cross-entropy ``[B]`` with the gradient of a method (or of a fixed tree)."""
        if spelling.startswith("tree="):
            return F.cross_entropy(self(batch, fixed_chooser(spelling[5:])), batch.values, reduction="none")
        method = Method.parse(spelling)
        if method.name not in SCORE_FUNCTION:
            logits = self(batch, lambda scores, _: sample(scores, method.name, **method.options).one_hot)
            return F.cross_entropy(logits, batch.values, reduction="none")
        return self._score_function_losses(batch, method)

    def _score_function_losses(self, batch: Batch, method: Method) -> Tensor:
        """K sampled trees per expression, as K * B rows; log p of a tree is the sum over its merges."""
        K = method.options.get("samples", 1)
        repeated = Batch(*(tensor.repeat(K, *[1] * (tensor.dim() - 1)) for tensor in batch))
        log_prob = []

        def choose(scores: Tensor, _: Tensor) -> Tensor:
            index, log_p = draw(scores)
            # A finished expression has a decision without effect: it must not count.
            log_prob.append(log_p.where(repeated.lengths - 1 > len(log_prob), 0.0))
            return one_hot_like(index, scores)

        losses = F.cross_entropy(self(repeated, choose), repeated.values, reduction="none")
        total = torch.stack(log_prob).sum(0)
        estimator = {"reinforce": reinforce, "rloo": rloo}[method.name]
        return estimator(losses.view(K, -1), total.view(K, -1)).mean(0)

    @torch.no_grad()
    def accuracy(self, data: list[Batch], spelling: str) -> float:
        """Share of expressions whose value is right, with the best merges (or the fixed tree)."""
        fixed = spelling.startswith("tree=")
        choose = fixed_chooser(spelling[5:]) if fixed else lambda s, _: sample(s, "argmax_st").one_hot
        right = sum(int((self(batch, choose).argmax(-1) == batch.values).sum()) for batch in data)
        return right / sum(len(batch.values) for batch in data)


def run_cell(cell: dict, checkpoint: Checkpoint) -> dict:
    """Train one model; accuracy on dev after every epoch."""
    if cell["data"] is None:
        train, dev = generated(cell["train"], cell["max_tokens"], 0), generated(100, cell["max_tokens"], 1)
    else:
        folder = Path(cell["data"])
        train = read(folder / "train.tsv.gz", cell["max_tokens"], cell["train"])
        dev = read(folder / "dev.tsv.gz", cell["max_tokens"], 0)
    train, dev = batches(train, cell["batch"]), batches(dev, 256)
    model = TreeLSTM(cell["hidden"])
    optimizer = torch.optim.RAdam(model.parameters(), lr=cell["lr"])

    def run_epoch(_: int) -> float:
        for i in torch.randperm(len(train)).tolist():
            loss = model.losses(train[i], cell["method"]).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        return model.accuracy(dev, cell["method"])

    history = checkpoint.epochs(cell["epochs"], run_epoch, model=model, optimizer=optimizer)
    return {"history": history, "dev": max(history), "last": history[-1]}


@one_line_errors("listops")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = arguments(__doc__, "listops", METHODS, TREES)
    default = data_folder() / "listops"
    parser.add_argument("--data", type=Path, default=default, help="folder with train.tsv.gz and dev.tsv.gz")
    parser.add_argument("--max-tokens", type=int, default=12)
    parser.add_argument("--train", type=int, default=5_000, help="training expressions, 0 = all")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    options = parser.parse_args(argv)
    if options.quick:
        options.data, options.train, options.hidden, options.epochs = None, 200, 16, 2
    shared = prepare(options) | {
        k: getattr(options, k) for k in ("max_tokens", "train", "hidden", "epochs", "batch", "lr")
    }
    cells = [
        {"method": method, "seed": seed, "data": options.data and str(options.data), **shared}
        for seed in range(options.seeds)
        for method in options.methods
    ]
    results = run_grid(options.out, cells, run_cell)
    by_method = {method: [r for r in results if r["method"] == method] for method in options.methods}
    report(options, by_method)
    measures = {"best, percent": lambda r: 100 * r["dev"], "last, percent": lambda r: 100 * r["last"]}
    record(NAME, argv, 1, measures, by_method).leave(options.out)


def report(options: argparse.Namespace, by_method: dict[str, list[dict]]) -> None:
    """Show and save table and picture."""
    rows = [
        [
            method,
            spread([100 * r["dev"] for r in found], 1),
            spread([100 * r["last"] for r in found], 1),
            f"{statistics.mean(r['seconds'] for r in found):.0f}",
        ]
        for method, found in by_method.items()
    ]
    caption = (
        f"ListOps, at most {options.max_tokens} tokens, {options.train or 'all'} training expressions: dev "
        f"accuracy (%), best and last of {options.epochs} epochs, {options.seeds} seeds (mean ± deviation)."
    )
    save_table(options.out / "table.md", caption, ["method", "best", "last", "CPU s per run"], rows)
    curves = {
        m: torch.tensor([r["history"] for r in found]).mean(0).tolist() for m, found in by_method.items()
    }
    save_curves(options.out / "listops.png", "ListOps, latent trees", "epoch", "dev accuracy", curves)


if __name__ == "__main__":
    main(sys.argv[1:])
