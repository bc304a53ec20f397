"""spigot_parser beside spaCy's own parser: accuracy after equal training, and words per second.

    python -m benchmarks.spacy_parsing --epochs 5

Both get the same tok2vec (HashEmbedCNN 96 x 4, spaCy's default), the same batches of UD English EWT in the
same order, the same optimizer and dropout; one document per sentence, no pretrained vectors. Speed is taken
on the dev set in turns with one thread, as CPU time of ``pipe`` (model, decoding, and writing to the
document), with spaCy's default batches of 1000 documents.
"""

import argparse
import os
import random
import time
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import spacy
import torch
from spacy.tokens import Doc
from spacy.training import Example
from spacy.training.batchers import minibatch_by_words
from spacy.training.converters import conllu_to_docs
from spacy.vocab import Vocab
from thinc.api import Adam, fix_random_seed

from benchmarks._measure import cpu_medians, save
from diffdecode.files.text import numbered_lines
from spacy_components.pipeline.spigot_parser import DEFAULT_PARSER_MODEL
from spacy_components.training.scorers import parse_scores

ROOT = Path(__file__).resolve().parents[1]
TREEBANK = "ud_english_ewt/en_ewt-ud-{}.conllu.gz"
TOK2VEC = DEFAULT_PARSER_MODEL["tok2vec"]
STOCK_MODEL = {
    "@architectures": "spacy.TransitionBasedParser.v2",
    "state_type": "parser",
    "extra_state_tokens": False,
    "hidden_width": 64,
    "maxout_pieces": 2,
    "use_upper": True,
    "tok2vec": TOK2VEC,
}  # what nlp.add_pipe("parser") makes
QUICKSTART_MODEL = {**STOCK_MODEL, "hidden_width": 128, "maxout_pieces": 3}  # and `spacy init config`
PARSERS = {
    "spaCy parser": ("parser", {"model": STOCK_MODEL}),
    "spaCy parser, quickstart": ("parser", {"model": QUICKSTART_MODEL}),
    "spigot_parser": ("spigot_parser", {}),
    "spigot_parser, hinge": ("spigot_parser", {"loss": "hinge"}),
    "spigot_parser, non-projective": ("spigot_parser", {"projective": False}),
}


def read(folder: Path, split: str, limit: int, vocab: Vocab) -> list[Doc]:
    """The sentences of a split, one document each, on a vocabulary that knows prefixes, shapes and so on."""
    path = folder / TREEBANK.format(split)
    text = "".join(f"{line}\n" for _, line in numbered_lines(path))
    docs = conllu_to_docs(text, n_sents=1, no_print=True)
    return [Doc(vocab).from_bytes(doc.to_bytes()) for doc in islice(docs, limit or None)]


def bare(doc: Doc) -> Doc:
    """The words of a document."""
    return Doc(doc.vocab, words=[t.text for t in doc], spaces=[bool(t.whitespace_) for t in doc])


def train(name: str, docs: list[Doc], dev: list[Doc], epochs: int) -> tuple[spacy.language.Language, dict]:
    """Train one parser; also the scores after each epoch and the training words per CPU second."""
    fix_random_seed(0)
    nlp = spacy.blank("en", vocab=docs[0].vocab)
    factory, config = PARSERS[name]
    nlp.add_pipe(factory, config=config)
    examples = [Example(bare(doc), doc) for doc in docs]
    nlp.initialize(lambda: examples)
    optimizer = Adam(0.001, L2=0.01, L2_is_weight_decay=True, grad_clip=1.0)
    order, history, seconds, words = random.Random(0), [], 0.0, 0
    for epoch in range(epochs):
        order.shuffle(examples)
        start = time.process_time()
        for batch in minibatch_by_words(examples, size=1000, get_length=lambda eg: len(eg.predicted)):
            nlp.update(batch, sgd=optimizer, drop=0.1)
            words += sum(len(eg.predicted) for eg in batch)
        seconds += time.process_time() - start
        scores = evaluate(nlp, dev)
        history.append({"epoch": epoch + 1, **scores})
        print(f"{name:30} epoch {epoch + 1}: UAS {scores['uas']:.2f} LAS {scores['las']:.2f}", flush=True)
    return nlp, {"history": history, "training words/s": words / seconds}


def evaluate(nlp, dev: list[Doc]) -> dict[str, float]:
    """UAS and LAS in percent, punctuation included."""
    pipe = nlp.pipeline[0][1]
    parsed = pipe.pipe((bare(doc) for doc in dev), batch_size=1000)
    scores = parse_scores([Example(doc, gold) for doc, gold in zip(parsed, dev)])
    return {"uas": 100 * scores["dep_uas"], "las": 100 * scores["dep_las"]}


def speed(pipelines: dict, dev: list[Doc], repeats: int) -> dict[str, float]:
    """Words per CPU second of each pipeline, measured in turns, every time on documents not parsed before."""

    def step(nlp):
        fresh = [[bare(doc) for doc in dev] for _ in range(repeats + 1)]
        return lambda: list(nlp.pipeline[0][1].pipe(iter(fresh.pop()), batch_size=1000))

    seconds = cpu_medians({name: step(nlp) for name, nlp in pipelines.items()}, repeats)
    words = sum(len(doc) for doc in dev)
    return {name: words / spent for name, spent in seconds.items()}


def main() -> None:
    """Train, measure, print a table and save it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path)
    arguments.add_argument("--epochs", type=int, default=5)
    arguments.add_argument("--repeats", type=int, default=9)
    arguments.add_argument("--limit", type=int, default=0, help="training sentences (0: all)")
    arguments.add_argument("--parsers", nargs="+", default=list(PARSERS), choices=list(PARSERS))
    options = arguments.parse_args()
    torch.set_num_threads(1)
    data = options.data or Path(os.environ.get("DIFFDECODE_DATA", ROOT.parent / "shared" / "data"))
    if not (data / TREEBANK.format("train")).is_file():
        print(f"nothing measured: {data} has no {TREEBANK.format('train')} (--data, or DIFFDECODE_DATA)")
        return
    vocab = spacy.blank("en").vocab
    docs, dev = read(data, "train", options.limit, vocab), read(data, "dev", 0, vocab)
    pipelines, results = {}, {}
    for name in options.parsers:
        pipelines[name], results[name] = train(name, docs, dev, options.epochs)
    fast = speed(pipelines, dev, options.repeats)
    first = fast[options.parsers[0]]
    print(f"\n{'':30} {'UAS':>6} {'LAS':>6} {'words/s':>9} {'ratio':>6} {'training':>9}")
    for name, result in results.items():
        last = result["history"][-1]
        result |= {"words/s": fast[name], "ratio": fast[name] / first}
        print(
            f"{name:30} {last['uas']:6.2f} {last['las']:6.2f} {fast[name]:9.0f} {fast[name] / first:6.2f} "
            f"{result['training words/s']:9.0f}"
        )
    print("saved", save("spacy_parsing", {"epochs": options.epochs, "parsers": results}))


if __name__ == "__main__":
    main()
