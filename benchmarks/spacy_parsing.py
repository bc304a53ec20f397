"""spigot_parser beside spaCy's own parser: accuracy after equal training, and words per second.

    python -m benchmarks.spacy_parsing --epochs 5

All get the same encoder (HashEmbedCNN 96 x 4, spaCy's default), the same batches of UD English EWT in the
same order, the same optimizer and dropout; one document per sentence, no pretrained vectors. spaCy's parser
is there twice: as ``nlp.add_pipe("parser")`` makes it, and on the block of ``spigot_parser``, which is the
same function by faster matrix products. Speed is CPU time with one thread, all parsers in turns: of ``pipe``
on the dev set (model, decoding, and writing to the document) with spaCy's default batches of 1000 documents,
and of ``update`` on batches of 1000 words. A ratio is the median of those of the turns.
"""

import argparse
import os
import random
from collections.abc import Callable, Iterator
from itertools import islice
from operator import truediv
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import spacy
import torch
from spacy.language import Language
from spacy.pipeline.tok2vec import DEFAULT_TOK2VEC_MODEL
from spacy.tokens import Doc
from spacy.training import Example
from spacy.training.batchers import minibatch_by_words
from spacy.training.converters import conllu_to_docs
from spacy.vocab import Vocab
from thinc.api import Adam, fix_random_seed

from benchmarks._measure import cpu_seconds, save
from diffdecode.files.text import numbered_lines
from spacy_components.pipeline.spigot_parser import DEFAULT_PARSER_MODEL
from spacy_components.training.scorers import parse_scores

ROOT = Path(__file__).resolve().parents[1]
TREEBANK = "ud_english_ewt/en_ewt-ud-{}.conllu.gz"
TOK2VEC = DEFAULT_PARSER_MODEL["tok2vec"]
SPACYS_TOK2VEC = DEFAULT_TOK2VEC_MODEL
STOCK_MODEL = {
    "@architectures": "spacy.TransitionBasedParser.v2",
    "state_type": "parser",
    "extra_state_tokens": False,
    "hidden_width": 64,
    "maxout_pieces": 2,
    "use_upper": True,
    "tok2vec": SPACYS_TOK2VEC,
}  # what nlp.add_pipe("parser") makes
QUICKSTART_MODEL = {**STOCK_MODEL, "hidden_width": 128, "maxout_pieces": 3}  # and `spacy init config`
PARSERS = {
    "spaCy parser": ("parser", {"model": STOCK_MODEL}),
    "spaCy parser on our tok2vec": ("parser", {"model": {**STOCK_MODEL, "tok2vec": TOK2VEC}}),
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


def train(name: str, docs: list[Doc], dev: list[Doc], epochs: int) -> tuple[Language, dict]:
    """Train one parser; also the scores after each epoch."""
    fix_random_seed(0)
    nlp = spacy.blank("en", vocab=docs[0].vocab)
    factory, config = PARSERS[name]
    nlp.add_pipe(factory, config=config)
    examples = [Example(bare(doc), doc) for doc in docs]
    nlp.initialize(lambda: examples)
    optimizer = Adam(0.001, L2=0.01, L2_is_weight_decay=True, grad_clip=1.0)
    order, history = random.Random(0), []
    for epoch in range(epochs):
        order.shuffle(examples)
        for batch in batched(examples):
            nlp.update(batch, sgd=optimizer, drop=0.1)
        scores = evaluate(nlp, dev)
        history.append({"epoch": epoch + 1, **scores})
        print(f"{name:30} epoch {epoch + 1}: UAS {scores['uas']:.2f} LAS {scores['las']:.2f}", flush=True)
    return nlp, {"history": history}


def batched(examples: list[Example]) -> Iterator[list[Example]]:
    """Batches of 1000 words."""
    return minibatch_by_words(examples, size=1000, get_length=lambda example: len(example.predicted))


def evaluate(nlp, dev: list[Doc]) -> dict[str, float]:
    """UAS and LAS in percent, punctuation included."""
    pipe = nlp.pipeline[0][1]
    parsed = pipe.pipe((bare(doc) for doc in dev), batch_size=1000)
    scores = parse_scores([Example(doc, gold) for doc, gold in zip(parsed, dev)])
    return {"uas": 100 * scores["dep_uas"], "las": 100 * scores["dep_las"]}


def parsing_seconds(pipelines: dict[str, Language], dev: list[Doc], repeats: int) -> dict[str, list[float]]:
    """CPU seconds a word of each pipeline in each turn, every time on documents not parsed before."""

    def step(nlp: Language) -> Callable[[], object]:
        fresh = [[bare(doc) for doc in dev] for _ in range(repeats + 1)]
        return lambda: list(nlp.pipeline[0][1].pipe(iter(fresh.pop()), batch_size=1000))

    seconds = cpu_seconds({name: step(nlp) for name, nlp in pipelines.items()}, repeats)
    words = sum(len(doc) for doc in dev)
    return {name: [spent / words for spent in turns] for name, turns in seconds.items()}


def training_seconds(pipelines: dict[str, Language], docs: list[Doc], repeats: int) -> dict[str, list[float]]:
    """CPU seconds a word of a step of training of each pipeline, all on the same batch in each turn."""
    batches = list(islice(batched([Example(bare(doc), doc) for doc in docs]), repeats + 1))
    if len(batches) <= repeats:
        raise SystemExit(f"{len(docs)} training sentences are {len(batches)} batches; {repeats + 1} needed")

    def step(nlp: Language) -> Callable[[], object]:
        optimizer, left = Adam(0.001, L2=0.01, L2_is_weight_decay=True, grad_clip=1.0), iter(batches)
        return lambda: nlp.update(next(left), sgd=optimizer, drop=0.1)

    seconds = cpu_seconds({name: step(nlp) for name, nlp in pipelines.items()}, repeats)
    words = [sum(len(example.predicted) for example in batch) for batch in batches[1:]]
    return {name: [spent / n for spent, n in zip(turns, words)] for name, turns in seconds.items()}


def compared(seconds: dict[str, list[float]]) -> dict[str, tuple[float, dict[str, float]]]:
    """Of each parser its words/s, and how many times as fast as each of spaCy's it is."""
    peers = [name for name in seconds if name.startswith("spaCy parser")]
    return {
        name: (1 / median(turns), {peer: median(map(truediv, seconds[peer], turns)) for peer in peers})
        for name, turns in seconds.items()
    }


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
    parsing = compared(parsing_seconds(pipelines, dev, options.repeats))
    training = compared(training_seconds(pipelines, docs, options.repeats))
    print(f"\n{'':30} {'UAS':>6} {'LAS':>6} {'words/s':>9} {'training':>9}")
    for name, result in results.items():
        result |= {"words/s": parsing[name][0], "training words/s": training[name][0]}
        result |= {"ratio": parsing[name][1], "training ratio": training[name][1]}
        last = result["history"][-1]
        speeds = f"{result['words/s']:9.0f} {result['training words/s']:9.0f}"
        print(f"{name:30} {last['uas']:6.2f} {last['las']:6.2f} {speeds}")
        for peer in result["ratio"]:
            ratios = f"{result['ratio'][peer]:9.2f} {result['training ratio'][peer]:9.2f}"
            print(f"{'':15}times {peer:30} {ratios:>16}")
    about = {"epochs": options.epochs, "limit": options.limit, "parsers": results}
    print("saved", save("spacy_parsing", about))


if __name__ == "__main__":
    main()
