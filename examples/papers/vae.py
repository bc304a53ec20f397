"""Discrete variational autoencoder (Liu et al. 2023): categorical latents, Bernoulli pixels, uniform prior.

    python -m examples.papers.vae                              # scikit-learn's 8x8 digits, minutes
    python -m examples.papers.vae --data mnist --latents 4x24  # $DIFFDECODE_DATA/mnist, hours on a CPU
    python -m examples.papers.vae --data FOLDER                # with train-images-idx3-ubyte(.gz)

``--latents 8x4`` means 4 latent variables of 8 values.  On MNIST the network is 784-512-256 and the settings
per latent size are those of the authors' scripts; on the digits it is 64-128, Adam 2e-3, 80 epochs.  The
reconstruction term gets its gradient from the estimator, the KL term is exact.  Every decision is hard, so
the training loss is a true negative ELBO (nats per image) for every method.
"""

import argparse
import gzip
import itertools
import math
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples._shared.commands import one_line_errors
from examples._shared.data import data_folder
from examples._shared.pictures import save_curves
from examples._shared.runs import Checkpoint, run_grid
from examples._shared.tables import save_table, spread
from examples.papers._estimators import Method, arguments, prepare, record

NAME = "examples.papers.vae"
METHODS = [
    "reinmax",
    "reinmax,tau=1.3",
    "reinmax,tau=1.5",
    "reinmax_loo",
    "unbiased_reinmax",
    "st",
    "st,tau=1.3",
    "st_gumbel",
    "st_gumbel,tau=0.5",
    "gumbel_rao,tau=0.5,samples=10",
    "gapped_st,tau=0.7",
    "gapped_st,tau=0.7,gap=p",
    "rloo,samples=4",
]
# Authors' settings for MNIST, by latents (values x variables): learning rate and optimizer.
MNIST_SETTINGS = {
    "8x4": (5e-4, "Adam"),
    "4x24": (5e-4, "RAdam"),
    "8x16": (7e-4, "RAdam"),
    "16x12": (7e-4, "RAdam"),
    "64x8": (5e-4, "RAdam"),
    "10x30": (5e-4, "RAdam"),
}
LAST_EPOCHS = 5  # averaged in the table


def digits() -> Tensor:
    """Scikit-learn's 1,797 images of 8x8 pixels, ``[1797, 64]`` in [0, 1]."""
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().data / 16).float()


def mnist(folder: Path) -> Tensor:
    """Training images of an IDX file, plain or gzipped, ``[60000, 784]`` in [0, 1]."""
    name = "train-images-idx3-ubyte"
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.exists()]
    if not found:
        raise FileNotFoundError(f"neither {name} nor {name}.gz in {folder}")
    opener = gzip.open if found[0].suffix == ".gz" else open
    try:
        with opener(found[0], "rb") as stream:
            raw = stream.read()
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{found[0]} cannot be read: {error}") from None
    magic, count, height, width = np.frombuffer(raw[:16].ljust(16, b"\0"), ">i4")
    if magic != 2051 or len(raw) != 16 + count * height * width:
        raise ValueError(f"{found[0]} is not a complete IDX file of images")
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(count, height * width)
    return torch.from_numpy(pixels / np.float32(255))


def images(data: str) -> tuple[Tensor, Tensor]:
    """Training and held-out images; held out: the last 297 digits, or the last 5,000 of MNIST."""
    if data == "digits":
        return digits().split([1500, 297])
    folder = data_folder() / "mnist" if data == "mnist" else Path(data)
    pixels = mnist(folder)
    return pixels[:-5000], pixels[-5000:]


class DiscreteVAE(nn.Module):
    """Multi-layer perceptrons on both sides of n latent variables of V values."""

    def __init__(self, pixels: int, hidden: list[int], variables: int, values: int):
        super().__init__()
        self.latent = (variables, values)
        sizes = [pixels, *hidden, variables * values]
        self.encoder = self._perceptron(sizes)
        self.decoder = self._perceptron(sizes[::-1])

    @staticmethod
    def _perceptron(sizes: list[int]) -> nn.Sequential:
        layers = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def negative_elbo(self, x: Tensor, method: Method) -> Tensor:
        """``[B]`` nats per image ``x`` ``[B, pixels]``, one or more decisions each."""
        scores = self.encoder(x).unflatten(-1, self.latent)

        def reconstruction(decision: Tensor) -> Tensor:
            logits = self.decoder(decision.flatten(-2))
            target = x.expand_as(logits)
            return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)

        log_q = scores.log_softmax(-1)
        kl = (log_q.exp() * (log_q + math.log(self.latent[1]))).sum((-2, -1))
        return method.expected_loss(scores, reconstruction) + kl


def run_cell(cell: dict, checkpoint: Checkpoint) -> dict:
    """Train one model; negative ELBO after every epoch, and on held-out images."""
    train, held_out = (part.to(torch.get_default_device()) for part in images(cell["data"]))
    values, variables = map(int, cell["latents"].split("x"))
    model = DiscreteVAE(train.shape[1], cell["hidden"], variables, values)
    optimizer = getattr(torch.optim, cell["optimizer"])(model.parameters(), lr=cell["lr"])
    method = Method.parse(cell["method"])

    def run_epoch(_: int) -> float:
        total = 0.0
        for batch in torch.randperm(len(train)).split(cell["batch"]):
            loss = model.negative_elbo(train[batch], method)
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
            total += float(loss.detach().sum())
        return total / len(train)

    history = checkpoint.epochs(cell["epochs"], run_epoch, model=model, optimizer=optimizer)
    with torch.no_grad():
        draws = [float(model.negative_elbo(held_out, Method.parse("st")).mean()) for _ in range(20)]
    return {
        "history": history,
        "train": statistics.mean(history[-LAST_EPOCHS:]),
        "held_out": statistics.mean(draws),
    }


def settings(options: argparse.Namespace) -> dict:
    """Network and optimizer of a data set."""
    shared = {"data": options.data, "latents": options.latents, "batch": 100}
    if options.data == "digits":
        return shared | {"hidden": [128], "lr": 2e-3, "optimizer": "Adam", "epochs": options.epochs or 80}
    lr, optimizer = MNIST_SETTINGS.get(options.latents, (5e-4, "RAdam"))
    return shared | {"hidden": [512, 256], "lr": lr, "optimizer": optimizer, "epochs": options.epochs or 160}


@one_line_errors("vae")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = arguments(__doc__, "vae", METHODS)
    parser.add_argument("--data", default="digits", help="digits, mnist, or a folder with MNIST's IDX files")
    parser.add_argument(
        "--latents", default="8x4", help="values x variables, e.g. 8x4, 4x24, 8x16, 16x12, 64x8"
    )
    parser.add_argument("--epochs", type=int, help="default: 80 for digits, 160 for MNIST")
    options = parser.parse_args(argv)
    if options.quick:
        options.data, options.latents, options.epochs = "digits", "4x3", 2
    shared = settings(options) | prepare(options)
    problem = f"{Path(options.data).name}-{options.latents}"
    cells = [
        {"problem": problem, "method": method, "seed": seed, **shared}
        for seed in range(options.seeds)
        for method in options.methods
    ]
    results = run_grid(options.out, cells, run_cell)
    by_method = {method: [r for r in results if r["method"] == method] for method in options.methods}
    rows = [
        [
            method,
            spread([r["train"] for r in found], 2),
            spread([r["held_out"] for r in found], 2),
            f"{statistics.mean(r['seconds'] for r in found):.0f}",
        ]
        for method, found in by_method.items()
    ]
    rows.sort(key=lambda row: float(row[1].split()[0]))
    caption = (
        f"Negative ELBO in nats per image, {problem}, {shared['epochs']} epochs (train: mean over the last "
        f"{LAST_EPOCHS}), {options.seeds} seeds (mean ± standard deviation)."
    )
    save_table(options.out / "table.md", caption, ["method", "train", "held out", "CPU s per run"], rows)
    measures = {"train, nats": lambda r: r["train"], "held out, nats": lambda r: r["held_out"]}
    record(NAME, argv, -1, measures, by_method).leave(options.out)
    curves = {m: np.mean([r["history"] for r in found], 0).tolist() for m, found in by_method.items()}
    title, skip = f"Discrete VAE, {problem}", shared["epochs"] // 4
    save_curves(options.out / f"{problem}.png", title, "epoch", "train -ELBO (nats)", curves, skip=skip)


if __name__ == "__main__":
    main(sys.argv[1:])
