"""A small dependency parser of Stanza's, trained on UD English EWT by Stanza's own trainer, on the CPU.

Reviews have no tags, so the parser learns without: words and their characters are all that it reads.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from diffdecode.files.atomic import write_bytes, write_text
from examples._shared.data import data_file, read_lines

TREEBANK = "ud_english_ewt/en_ewt-ud-{}.conllu.gz"
BLANK = range(2, 6)
"""Columns of CoNLL-U that the parser does not see: lemma, UPOS, XPOS and features."""
SIZE = {
    "hidden_dim": 100,
    "num_layers": 2,
    "char_hidden_dim": 50,
    "char_emb_dim": 30,
    "word_emb_dim": 75,
    "tag_emb_dim": 0,
    "deep_biaff_hidden_dim": 100,
    "dropout": 0.33,
    "batch_size": 2000,
    "optim": "adam",
    "lr": 0.003,
    "max_grad_norm": 5.0,
}


def train_parser(folder: Path, steps: int, seed: int = 0) -> Path:
    """Trains the parser, unless it is there already; returns its checkpoint."""
    from stanza.models import parser

    checkpoint = folder / f"stanza-{steps}.pt"
    if not checkpoint.exists():
        unfinished = folder / "training"  # where Stanza saves parsers before its last step
        unfinished.mkdir(parents=True, exist_ok=True)
        train, dev = (_untagged(part, folder / f"{part}.conllu") for part in ("train", "dev"))
        run = {"max_steps": steps, "eval_interval": 300, "log_step": 100, "seed": seed}
        files = ["--train_file", str(train), "--eval_file", str(dev), "--save_dir", str(unfinished)]
        fixed = ["--no_pretrain", "--no_second_optim", "--no_checkpoint", "--cpu", "--shorthand", "en_ewt"]
        named = [f"--{name}={value}" for name, value in (SIZE | run).items()]
        parser.main([*files, "--save_name", checkpoint.name, "--lang", "en", *fixed, *named])
        write_bytes(checkpoint, (unfinished / checkpoint.name).read_bytes())
        shutil.rmtree(unfinished)
    return checkpoint


def _untagged(part: str, target: Path) -> Path:
    source = data_file(TREEBANK.format(part))
    lines = read_lines(source.parent, source.name.removesuffix(".gz"))
    write_text(target, "".join(f"{_blank(line)}\n" for line in lines))
    return target


def _blank(line: str) -> str:
    columns = line.split("\t")
    return "\t".join("_" if i in BLANK else column for i, column in enumerate(columns))


def parse_with_stanza(checkpoint: Path, conllu: Path) -> list[list[tuple[int, str]]]:
    """``(head, relation)`` of every word of a file, as Stanza itself parses it."""
    from stanza.models.depparse.data import DataLoader
    from stanza.models.depparse.trainer import Trainer
    from stanza.models.depparse.utils import predict_dataset
    from stanza.utils.conll import CoNLL

    trainer = Trainer.load(str(checkpoint), None, device="cpu")
    document = CoNLL.conll2doc(input_file=str(conllu))
    data = DataLoader(
        document, 2000, trainer.args, None, vocab=trainer.vocab, evaluation=True, sort_during_eval=True
    )
    return [[(int(head), label) for head, label in s] for s in predict_dataset(trainer, data)]
