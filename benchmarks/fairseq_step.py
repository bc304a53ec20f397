"""Time and memory of a training step through fairseq's own models, beside cross entropy.

    python -m benchmarks.fairseq_step [--vocabularies 1000 10000 32000] [--batch 16] [--words 20]

A two-layer LSTM (256 units) and a six-layer Transformer (512, fairseq's base size), and a beam of 3. Forward
and backward of each criterion on the same batch; the competitors take turns in one process, and the table
shows medians of CPU time relative to cross entropy. Memory is the peak of a step over what the process held
before (weights and their gradients are held before).
"""

import argparse
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor

import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.data import Dictionary
from fairseq.models.lstm import LSTMModel
from fairseq.models.lstm import base_architecture as lstm_base
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer import base_architecture as transformer_base
from fairseq.tasks.fairseq_task import FairseqTask

from benchmarks._measure import cpu_medians, peaks, save
from fairseq_plugins.criterions.scheduled_sampling import ScheduledSamplingConfig, ScheduledSamplingCriterion
from fairseq_plugins.criterions.soft_beam import SoftBeamConfig, SoftBeamCriterion

CONSTANT = {"alpha_growth": 1.0, "sentence_avg": False}
CRITERIONS = {
    "cross entropy": lambda task: CrossEntropyCriterion(task, False),
    "scheduled sampling, plain": lambda task: _sampling(task, fused="never"),
    "scheduled sampling, fused": lambda task: _sampling(task, fused="always"),
    "scheduled sampling, Gumbel, fused": lambda task: _sampling(
        task, estimator="gumbel_soft", fused="always"
    ),
    "scheduled sampling, two passes": lambda task: _sampling(task, rollout="two_pass"),
    "soft beam, all candidates": lambda task: _soft_beam(task),
    "soft beam, 64 candidates": lambda task: _soft_beam(
        task, soft_beam_candidates=64, soft_beam_tolerance=1.0
    ),
}


def _sampling(task, **options):
    config = ScheduledSamplingConfig(gold_schedule="never", fused_tolerance=1.0, **CONSTANT, **options)
    config.alpha = 4.0
    return ScheduledSamplingCriterion(config, task)


def _soft_beam(task, **options):
    return SoftBeamCriterion(SoftBeamConfig(**CONSTANT, **options), task)


class Task(FairseqTask):
    """A vocabulary, and nothing else."""

    def __init__(self, vocabulary: int):
        super().__init__(Namespace())
        self._words = Dictionary()
        for word in range(vocabulary - len(self._words)):
            self._words.add_symbol(f"w{word}")

    @property
    def source_dictionary(self):
        return self._words

    target_dictionary = source_dictionary


def lstm(task):
    """Two layers of 256 units in encoder and decoder, with attention."""
    sizes = (
        "encoder_embed_dim encoder_hidden_size decoder_embed_dim decoder_hidden_size decoder_out_embed_dim"
    )
    args = Namespace(dropout=0.0, encoder_layers=2, decoder_layers=2, **dict.fromkeys(sizes.split(), 256))
    args.criterion = "cross_entropy"
    lstm_base(args)
    return LSTMModel.build_model(args, task)


def transformer(task):
    """fairseq's base Transformer: six layers of 512, one embedding for everything."""
    args = Namespace(
        dropout=0.0, share_all_embeddings=True, max_source_positions=256, max_target_positions=256
    )
    transformer_base(args)
    return TransformerModel.build_model(args, task)


MODELS = {"lstm": lstm, "transformer": transformer}


class Problem:
    """A model and a batch."""

    def __init__(self, model: str, vocabulary: int, batch: int, words: int):
        torch.manual_seed(0)
        self.task = Task(vocabulary)
        self.model = MODELS[model](self.task).train()
        shape = (batch, words)
        target = torch.randint(4, vocabulary, shape)
        self.sample = {
            "net_input": {
                "src_tokens": torch.randint(4, vocabulary, shape),
                "src_lengths": torch.full((batch,), words),
                "prev_output_tokens": target.roll(1, 1),
            },
            "target": target,
            "ntokens": target.numel(),
        }
        self.model.zero_grad(set_to_none=False)

    def step(self, name: str):
        """Forward and backward of the criterion of that name."""
        criterion = CRITERIONS[name](self.task).train()

        def step():
            criterion(self.model, self.sample)[0].backward()
            self.model.zero_grad(set_to_none=False)

        return step


def measure(model: str, vocabulary: int, batch: int, words: int, names: list[str], repeats: int) -> dict:
    """CPU seconds and peak megabytes of a training step with each criterion."""
    torch.set_num_threads(1)
    problem = Problem(model, vocabulary, batch, words)
    steps = {name: problem.step(name) for name in names}
    return {"cpu_seconds": cpu_medians(steps, repeats), "peak_megabytes": peaks(steps)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[1000, 10_000, 32_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--criterions", nargs="+", choices=tuple(CRITERIONS), default=list(CRITERIONS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = ["cross entropy", *(name for name in arguments.criterions if name != "cross entropy")]
    results: dict = {model: {} for model in arguments.models}
    jobs = [(model, size) for size in arguments.vocabularies for model in arguments.models]
    for model, size in jobs:
        # In a process of its own: giving memory back at once, as it is measured, would slow the next.
        with ProcessPoolExecutor(1) as pool:
            work = pool.submit(
                measure, model, size, arguments.batch, arguments.words, names, arguments.repeats
            )
            results[model][size] = found = work.result()
        time, memory = found["cpu_seconds"], found["peak_megabytes"]
        base = time["cross entropy"], memory["cross entropy"]
        print(f"{model}, V = {size}: cross entropy {base[0] * 1e3:.0f} ms CPU, {base[1]:.0f} MB")
        for name in names:
            ratios = time[name] / base[0], memory[name] / base[1]
            print(
                f"  {name:32s} time {ratios[0]:5.2f}   peak {memory[name]:6.0f} MB {ratios[1]:5.2f}",
                flush=True,
            )
    print(f"saved {save('fairseq_step', {'settings': vars(arguments), 'by_model': results})}")


if __name__ == "__main__":
    main()
