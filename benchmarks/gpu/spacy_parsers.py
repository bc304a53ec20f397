"""Words per second of spigot_parser and of spaCy's own parser, with the same tok2vec, on the card and a CPU.

The documents are random: it is speed that is measured.
"""

import random
import time
from collections.abc import Iterator

import spacy
import torch
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam, fix_random_seed, require_cpu, require_gpu

from benchmarks.gpu.card import Card
from benchmarks.spacy_parsing import PARSERS, bare

CHOSEN = ("spaCy parser", "spigot_parser", "spigot_parser, hinge", "spigot_parser, non-projective")


def measure(card: Card) -> Iterator[tuple[str, list[dict]]]:
    """Tables by place."""
    size = (4000, 12) if card.is_real else (12, 1)
    for place in ("card", "one CPU core") if card.is_real else ("one CPU core",):
        torch.set_num_threads(1)
        require_gpu() if place == "card" else require_cpu()
        docs, batches = size if place == "card" else (size[0] // 4 + 1, size[1] // 4 + 1)
        rows = [_measured(card, name, docs, batches) for name in CHOSEN]
        for one in rows:
            one["pipe_ratio"] = one["pipe words/s"] / rows[0]["pipe words/s"]
            one["training_ratio"] = one["training words/s"] / rows[0]["training words/s"]
        yield place, rows
    require_cpu()


def _measured(card: Card, name: str, docs: int, batches: int) -> dict:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    factory, config = PARSERS[name]
    pipe = nlp.add_pipe(factory, config=config)
    draw = random.Random(0)
    gold = [_tree(nlp.vocab, draw.randint(8, 40), draw) for _ in range(docs)]
    examples = [Example(bare(doc), doc) for doc in gold]
    nlp.initialize(lambda: examples[:50])
    sgd = Adam(0.001, L2=0.01, L2_is_weight_decay=True, grad_clip=1.0)
    chunks = [examples[i * 80 : i * 80 + 80] for i in range(batches + 2)]
    chunks = [chunk for chunk in chunks if chunk] or [examples]
    for chunk in chunks[:2]:
        nlp.update(chunk, sgd=sgd, drop=0.1)
    timed = chunks[2:] or chunks
    training = _words_per_second(card, timed, lambda: [nlp.update(c, sgd=sgd, drop=0.1) for c in timed])
    list(pipe.pipe((bare(doc) for doc in gold[:200]), batch_size=1000))
    fresh = [bare(doc) for doc in gold]
    speed = _words_per_second(card, [fresh], lambda: list(pipe.pipe(iter(fresh), batch_size=1000)))
    waits = card.waits(lambda: pipe.predict([bare(doc) for doc in gold[:100]]))
    return {"what": name, "pipe words/s": speed, "training words/s": training, "waits": waits}


def _words_per_second(card: Card, batches: list, step) -> float:
    words = sum(len(getattr(item, "predicted", item)) for batch in batches for item in batch)
    card.synchronize()
    start = time.perf_counter()
    step()
    card.synchronize()
    return words / (time.perf_counter() - start)


def _tree(vocab, n: int, draw: random.Random) -> Doc:
    """A random projective tree over a vocabulary of 5,000 words."""
    heads, agenda = [0] * n, [(0, n, None)]
    while agenda:
        first, last, head = agenda.pop()
        if first < last:
            top = draw.randrange(first, last)
            heads[top] = top if head is None else head
            agenda += [(first, top, top), (top + 1, last, top)]
    words = [f"w{int(5000 * draw.random() ** 3)}" for _ in range(n)]
    return Doc(
        vocab, words=words, heads=heads, deps=["ROOT" if h == i else f"d{h % 7}" for i, h in enumerate(heads)]
    )
