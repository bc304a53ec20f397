"""fairseq's whole life cycle, each command as a user would type it, on a small corpus made on the spot.

``make life-cycle`` runs every step and prints a table; it fails if a step fails. The steps marked as core are
part of the test suite (``test_life_cycle.py``).
"""

import argparse
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from installed import build, install, sources

from fairseq_compat import checkpoint_globals

USER_DIR = Path(__file__).resolve().parents[2] / "fairseq_plugins"
SENTENCES = {"train": 600, "valid": 60, "test": 60}
STEPS: dict[str, Callable] = {}
CORE: list[str] = []

DATA = "--max-tokens 1000 --num-workers 0"
CPU = f"{DATA} --cpu --optimizer adam --lr 5e-3 --seed 1 --log-format simple --log-interval 5"
LSTM = (
    "--arch lstm --encoder-embed-dim 32 --decoder-embed-dim 32 --decoder-out-embed-dim 32"
    " --encoder-hidden-size 32 --decoder-hidden-size 32 --encoder-bidirectional"
)
TRANSFORMER = (
    "--arch transformer_iwslt_de_en --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 32"
    " --decoder-embed-dim 32 --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64"
    " --encoder-attention-heads 2 --decoder-attention-heads 2"
)
BLEU = (
    """--eval-bleu --eval-bleu-args '{"beam": 2}' --eval-bleu-detok space --best-checkpoint-metric bleu"""
    " --maximize-best-checkpoint-metric"
)
LANGUAGE_MODEL = (
    "--task language_modeling --arch transformer_lm --decoder-layers 1 --decoder-embed-dim 32"
    " --decoder-ffn-embed-dim 64 --decoder-attention-heads 2 --tokens-per-sample 64 --max-target-positions 64"
    " --required-batch-size-multiple 1"
)
TWO_PROCESSES = "-m torch.distributed.run --standalone --nproc_per_node 2"


class Lab:
    """A folder with a toy corpus in it, where steps are run; each at most once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.python, self.user_dir = sys.executable, USER_DIR
        self.results: dict[str, str] = {}
        self.write_corpus()

    def write_corpus(self):
        """``a c b`` is translated to ``B C A``: learnable, and never the same sentence twice in a row."""
        draw = random.Random(0)
        for split, size in SENTENCES.items():
            source = [[draw.choice("abcdefghij") for _ in range(draw.randint(3, 9))] for _ in range(size)]
            target = [[word.upper() for word in reversed(words)] for words in source]
            for name, lines in (("src", source), ("tgt", target)):
                self.write(f"{split}.{name}", "".join(" ".join(words) + "\n" for words in lines))

    def write(self, name: str, text: str):
        (self.folder / name).write_text(text, encoding="utf-8")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def after(self, *names: str):
        """Run these steps first, unless that was done."""
        for name in names:
            if name not in self.results:
                self.results[name] = STEPS[name](self) or ""

    def run(self, command: str, stdin: str = "") -> str:
        """Run ``python <command>`` here, or a command of fairseq; return what it printed.

        Raises RuntimeError, with the end of that, if the exit status is not 0.
        """
        command = re.sub(
            r"^fairseq-(\S+)", lambda name: f"-m fairseq_cli.{name[1].replace('-', '_')}", command
        )
        status, printed = self.execute(shlex.split(command), stdin)
        if status:
            raise RuntimeError(f"exit status {status}: {command}\n{printed[-3000:]}")
        return printed

    def execute(self, arguments: list[str], stdin: str) -> tuple[int, str]:
        """``python *arguments`` in a process of its own: its exit status, and what it printed."""
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def train(self, save_dir: str, options: str, launch: str = "", data: str = "bin") -> str:
        """``fairseq-train`` with our ``--user-dir``, or ``launch`` of it."""
        data_and_plugins = f"{data} --user-dir {self.user_dir}"
        return self.run(
            f"{launch} -m fairseq_cli.train {data_and_plugins} {CPU} --save-dir {save_dir} {options}"
        )

    def generate(self, path: str, options: str = "--beam 5", data: str = "bin") -> str:
        """``fairseq-generate`` of the test split; checks that every sentence was translated."""
        output = self.run(
            f"fairseq-generate {data} --cpu --user-dir {self.user_dir} --path {path} {DATA} {options}"
        )
        translated = len(re.findall(r"^T-\d+\t", output, flags=re.MULTILINE))
        expect(translated == SENTENCES["test"], f"{translated} of {SENTENCES['test']} sentences translated")
        return output

    def checkpoint(self, name: str) -> dict:
        """The content of a checkpoint, read as fairseq reads it on this torch: weights only."""
        checkpoint_globals.fix()
        return torch.load(self.folder / name, weights_only=True)


def expect(condition: bool, message: str):
    """Raise RuntimeError unless the condition holds."""
    if not condition:
        raise RuntimeError(message)


def step(core: bool = False):
    """Register a step under its function's name; its docstring is its line in the table."""

    def register(function):
        STEPS[function.__name__] = function
        CORE.extend([function.__name__] * core)
        return function

    return register


def losses(log: str) -> list[float]:
    return [float(loss) for loss in re.findall(r" loss (\d+\.\d+)", log)]


def bleu(output: str) -> str:
    found = re.findall(r"BLEU\S* = (\d+\.\d+)", output)
    expect(bool(found), "no BLEU was reported")
    return f"BLEU {found[-1]}"


@step(core=True)
def preprocess(lab):
    """fairseq-preprocess, 1 and 2 workers give the same files"""
    prefixes = "-s src -t tgt --trainpref train --validpref valid --testpref test"
    for folder, workers in (("bin", 2), ("bin1", 1)):
        lab.run(f"fairseq-preprocess {prefixes} --destdir {folder} --workers {workers}")
    for file in ("dict.src.txt", "train.src-tgt.src.bin", "train.src-tgt.tgt.idx"):
        same = (lab.folder / "bin" / file).read_bytes() == (lab.folder / "bin1" / file).read_bytes()
        expect(same, f"{file} depends on the number of workers")


@step(core=True)
def train_lstm(lab):
    """fairseq-train, stock lstm, 2 epochs, saved every 7 updates"""
    lab.after("preprocess")
    log = lab.train("lstm", f"{LSTM} --max-epoch 2 --batch-size 40 --save-interval-updates 7")
    first, last = losses(log)[0], losses(log)[-1]
    expect(last < first, f"the loss did not fall: {first} to {last}")
    return f"loss {first} to {last}"


@step(core=True)
def resume_within_an_epoch(lab):
    """fairseq-train, stopped at update 7 of an epoch and resumed: same weights, bit for bit"""
    lab.after("train_lstm")
    options = f"{LSTM} --max-epoch 2 --batch-size 40 --save-interval-updates 7"
    lab.train("resumed", f"{options} --max-update 7")
    log = lab.train("resumed", options)
    expect("Loaded checkpoint" in log, "no checkpoint was loaded")
    whole, resumed = lab.checkpoint("lstm/checkpoint_last.pt"), lab.checkpoint("resumed/checkpoint_last.pt")
    different = [name for name, value in whole["model"].items() if not value.equal(resumed["model"][name])]
    expect(not different, f"differ after resuming: {different}")


@step(core=True)
def train_transformer(lab):
    """fairseq-train, stock transformer, --eval-bleu, label smoothing"""
    lab.after("preprocess")
    criterion = "--criterion label_smoothed_cross_entropy --label-smoothing 0.1"
    schedule = "--lr-scheduler inverse_sqrt --warmup-updates 10"
    log = lab.train("transformer", f"{TRANSFORMER} {criterion} {schedule} {BLEU} --max-epoch 3")
    expect("| bleu " in log, "validation reported no BLEU")


@step(core=True)
def resume_with_bleu(lab):
    """fairseq-train, resumed after --eval-bleu (NumPy counts in the checkpoint)"""
    lab.after("train_transformer")
    criterion = "--criterion label_smoothed_cross_entropy --label-smoothing 0.1"
    schedule = "--lr-scheduler inverse_sqrt --warmup-updates 10"
    log = lab.train("transformer", f"{TRANSFORMER} {criterion} {schedule} {BLEU} --max-epoch 4")
    expect("Loaded checkpoint" in log and "epoch 004" in log, "it did not go on with epoch 4")


@step(core=True)
def validate(lab):
    """fairseq-validate"""
    lab.after("train_transformer")
    path = "transformer/checkpoint_best.pt"
    log = lab.run(
        f"fairseq-validate bin --cpu --user-dir {lab.user_dir} --task translation --path {path} {DATA}"
    )
    return f"loss {losses(log)[-1]}"


@step(core=True)
def generate_lstm(lab):
    """fairseq-generate, lstm, beam 5"""
    lab.after("train_lstm")
    return bleu(lab.generate("lstm/checkpoint_best.pt", "--beam 5 --scoring sacrebleu"))


@step(core=True)
def generate_ensemble(lab):
    """fairseq-generate, transformer, ensemble of 2, n-best, alignment"""
    lab.after("resume_with_bleu")
    paths = "transformer/checkpoint_best.pt:transformer/checkpoint_last.pt"
    return bleu(lab.generate(paths, "--beam 5 --nbest 2 --print-alignment"))


@step(core=True)
def generate_sampling(lab):
    """fairseq-generate, sampling"""
    lab.after("train_transformer")
    lab.generate("transformer/checkpoint_best.pt", "--sampling --sampling-topk 5 --beam 2 --nbest 2")


@step(core=True)
def interactive(lab):
    """fairseq-interactive"""
    lab.after("train_transformer")
    path = "transformer/checkpoint_best.pt"
    output = lab.run(
        f"fairseq-interactive bin --cpu --user-dir {lab.user_dir} --path {path} --beam 5",
        stdin="a b c\nd e\n",
    )
    expect(len(re.findall(r"^H-\d+\t", output, flags=re.MULTILINE)) == 2, "not every line was translated")


@step(core=True)
def score(lab):
    """fairseq-score"""
    lab.after("train_lstm")
    output = lab.generate("lstm/checkpoint_best.pt")
    for letter, column, file in (("H", 2, "system"), ("T", 1, "reference")):
        lines = [line.split("\t")[column] for line in output.splitlines() if re.match(rf"{letter}-\d", line)]
        lab.write(file, "\n".join(lines) + "\n")
    return bleu(lab.run("fairseq-score --sys system --ref reference"))


@step()
def finetune(lab):
    """fairseq-train --finetune-from-model"""
    lab.after("train_transformer")
    start = "--finetune-from-model transformer/checkpoint_last.pt"
    log = lab.train("finetuned", f"{TRANSFORMER} --max-epoch 1 {start}")
    expect("loading pretrained model from" in log, "the model was not loaded")


@step()
def restore_and_reset(lab):
    """fairseq-train --restore-file with every --reset-*"""
    lab.after("train_transformer")
    resets = " ".join(f"--reset-{part}" for part in ("optimizer", "dataloader", "meters", "lr-scheduler"))
    start = f"--restore-file transformer/checkpoint_last.pt {resets}"
    log = lab.train("restored", f"{TRANSFORMER} --max-epoch 1 {start}")
    expect("Loaded checkpoint" in log, "no checkpoint was loaded")


@step()
def train_with_workers_and_buckets(lab):
    """fairseq-train, 2 data workers, --num-batch-buckets, --update-freq, clipping"""
    lab.after("preprocess")
    lab.train(
        "workers",
        f"{TRANSFORMER} --max-epoch 1 --num-workers 2 --num-batch-buckets 3 --update-freq 2 --clip-norm 1.0",
    )


@step()
def tensorboard(lab):
    """fairseq-train --tensorboard-logdir"""
    lab.after("preprocess")
    lab.train("tensorboard", f"{LSTM} --max-epoch 1 --tensorboard-logdir events")
    written = sorted(file.parent.name for file in (lab.folder / "events").rglob("events.*"))
    expect(written == ["train", "train_inner", "valid"], f"event files of {written}")


@step()
def moving_average(lab):
    """fairseq-train --store-ema, and generate with the average"""
    lab.after("preprocess")
    lab.train("ema", f"{TRANSFORMER} --max-epoch 1 --store-ema --ema-decay 0.99")
    expect("ema" in lab.checkpoint("ema/checkpoint_last.pt")["extra_state"], "no average in the checkpoint")
    lab.generate("ema/checkpoint_last.pt")


@step()
def sentencepiece(lab):
    """--bpe sentencepiece: train with --eval-bleu, generate, interactive"""
    import sentencepiece as sp

    sp.SentencePieceTrainer.train(
        input=f"{lab.folder}/train.src,{lab.folder}/train.tgt",
        model_prefix=f"{lab.folder}/pieces",
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = sp.SentencePieceProcessor(model_file=f"{lab.folder}/pieces.model")
    for name in (f"{split}.{side}" for split in SENTENCES for side in ("src", "tgt")):
        pieces = model.encode(lab.read(name).splitlines(), out_type=str)
        lab.write(f"pieces.{name}", "".join(" ".join(line) + "\n" for line in pieces))
    prefixes = "--trainpref pieces.train --validpref pieces.valid --testpref pieces.test"
    lab.run(f"fairseq-preprocess -s src -t tgt {prefixes} --destdir pieces --joined-dictionary")
    options = (
        f"{TRANSFORMER} --max-epoch 1 --share-all-embeddings {BLEU} --eval-bleu-remove-bpe sentencepiece"
    )
    lab.train("pieces.model.d", options, data="pieces")
    bpe = "--beam 5 --bpe sentencepiece --sentencepiece-model pieces.model --scoring sacrebleu"
    output = lab.generate("pieces.model.d/checkpoint_best.pt", bpe, data="pieces")
    path = "--path pieces.model.d/checkpoint_best.pt --bpe sentencepiece --sentencepiece-model pieces.model"
    lab.run(f"fairseq-interactive pieces --cpu {path} --beam 2", stdin="a b c\n")
    return bleu(output)


@step()
def language_model(lab):
    """fairseq-train and fairseq-eval-lm of a language model, --sample-break-mode eos"""
    lab.run("fairseq-preprocess --only-source --trainpref train.src --validpref valid.src --destdir lm")
    lab.train("lm.model", f"{LANGUAGE_MODEL} --sample-break-mode none --max-epoch 1", data="lm")
    blocks = "--gen-subset valid --sample-break-mode eos --tokens-per-sample 64"
    output = lab.run(f"fairseq-eval-lm lm --cpu --path lm.model/checkpoint_best.pt {DATA} {blocks}")
    (words,) = re.findall(r"Evaluated (\d+) tokens", output)
    there = sum(len(line.split()) + 1 for line in lab.read("valid.src").splitlines())
    expect(int(words) == there, f"{words} of {there} tokens evaluated")
    return re.findall(r"Perplexity: \S+", output)[-1]


@step()
def hydra_language_model(lab):
    """fairseq-hydra-train with a model of fairseq's own configuration folder"""
    lab.after("language_model")
    small = "decoder_layers=1 decoder_embed_dim=32 decoder_ffn_embed_dim=32 decoder_attention_heads=2"
    lab.run(
        f"fairseq-hydra-train task=language_modeling task.data={lab.folder}/lm task.tokens_per_sample=64"
        " model=transformer_lm/transformer_lm_gpt +model._name=transformer_lm"
        f" {' '.join(f'model.{option}' for option in small.split())} criterion=cross_entropy optimizer=adam"
        " lr_scheduler=fixed common.cpu=true dataset.batch_size=8 dataset.required_batch_size_multiple=1"
        f" optimization.max_epoch=1 optimization.lr=[0.005] checkpoint.save_dir={lab.folder}/hydra.lm"
    )
    lab.checkpoint("hydra.lm/checkpoint_best.pt")


@step()
def hydra_user_dir(lab):
    """fairseq-hydra-train with a configuration file and common.user_dir; generate from it"""
    lab.after("preprocess")
    lab.write("hydra.yaml", HYDRA.format(folder=lab.folder, user_dir=lab.user_dir))
    lab.run(f"fairseq-hydra-train --config-dir {lab.folder} --config-name hydra")
    lab.generate("hydra/checkpoint_best.pt")


HYDRA = """\
# @package _group_
common: {{cpu: true, user_dir: {user_dir}, log_format: simple}}
checkpoint: {{save_dir: {folder}/hydra}}
dataset: {{max_tokens: 1000, num_workers: 0}}
optimization: {{max_epoch: 1, lr: [0.005]}}
task: {{_name: translation, data: {folder}/bin, source_lang: src, target_lang: tgt}}
criterion: {{_name: cross_entropy}}
optimizer: {{_name: adam}}
lr_scheduler: {{_name: fixed}}
model:
  _name: transformer
  encoder: {{embed_dim: 32, ffn_embed_dim: 64, layers: 1, attention_heads: 2}}
  decoder: {{embed_dim: 32, ffn_embed_dim: 64, layers: 1, attention_heads: 2}}
"""


@step()
def two_processes(lab):
    """torchrun with 2 CPU processes, legacy_ddp; resumed"""
    lab.after("preprocess")
    options = f"{TRANSFORMER} --distributed-backend gloo --ddp-backend legacy_ddp"
    for epochs in (1, 2):
        log = lab.train("two", f"{options} --max-epoch {epochs}", launch=TWO_PROCESSES)
        expect("distributed init (rank 1)" in log, "the two processes did not train together")
    expect("Loaded checkpoint" in log and "epoch 002" in log, "it did not go on with epoch 2")
    lab.generate("two/checkpoint_last.pt")


@step()
def two_processes_pytorch_ddp(lab):
    """torchrun with 2 CPU processes, pytorch_ddp"""
    lab.after("preprocess")
    options = f"{TRANSFORMER} --distributed-backend gloo --ddp-backend pytorch_ddp"
    lab.train("two.pytorch", f"{options} --max-epoch 1", launch=TWO_PROCESSES)


@step()
def installed_user_dir(lab):
    """--user-dir of the installed package, in an environment with the wheel and without the checkout"""
    lab.after("preprocess")
    python, site = install(build("wheel", sources(lab.folder), lab.folder), lab.folder / "installed")
    lab.user_dir, lab.python = site / "fairseq_plugins", python
    try:
        lab.train("installed.model", f"{LSTM} --max-epoch 1")
        packages = "fairseq_compat, fairseq_plugins"
        where = lab.run(f"-c 'import {packages}; print(*[p.__file__ for p in ({packages})])'")
    finally:
        lab.user_dir, lab.python = USER_DIR, sys.executable
    expect(where.count(str(site)) == 2, f"imported from elsewhere: {where}")


def main():
    """Run the steps and print the table."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="step", help=f"one of {', '.join(STEPS)}; default: all")
    names = parser.parse_args().steps or list(STEPS)
    console, failures = Console(), {}
    table = Table("step", "ok", "seconds", "seen", title="fairseq's life cycle with diffdecode's --user-dir")
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        for name in names:
            start = time.perf_counter()
            with console.status(name):
                try:
                    lab.after(name)
                except Exception as error:
                    failures[name] = error
            seen = "[red]see below" if name in failures else lab.results[name]
            ok = "[red]no" if name in failures else "yes"
            table.add_row(STEPS[name].__doc__, ok, f"{time.perf_counter() - start:.1f}", seen)
    console.print(table)
    for name, error in failures.items():
        console.print(f"\n[red]{name}[/red]: {error}", markup=True, highlight=False)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
