"""The systems that are compared, how one of them is trained, and its scores."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import spacy
from spacy import util
from spacy.language import Language
from spacy.tokens import DocBin

from diffdecode.files.atomic import write_bytes
from examples._shared.runs import done_once
from examples._shared.spacy_training import LAST, learn_rate, train_from_scratch
from examples.papers.teach_parser.material import Draw, words_in, write_dev, write_given
from spacy_components.training.corpus import create_corpus

CONFIG = Path(__file__).parent / "config.cfg"
PARSER = "spigot_parser"
NO_TREES, PIPELINE = "none", "pipeline"
SYSTEMS = (NO_TREES, PIPELINE, "ste", "spigot", "structured_st", "spigot_eg")
ETA = {"spigot_eg": 0.1}
WIDTHS = {"word": 64, "window": 64, "bilstm": 96}
"""What a word's own vector is made from, and its width."""
PARTS = 5
"""Of TreeConcat: the word, its head, its children on either side, its grandparent."""
TREE_WORDS = 0.25
"""Words with a tree for each word with a tag."""
GIVEN = "test: accuracy"
SCORES = {"tag_acc": "accuracy", "dep_uas": "uas", "dep_las": "las"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all trainings share.

    Attributes:
        data: where the data is; None for the generated language.
        sentences: tagged sentences.
        steps: of the joint training.
        words: tagged words in one of them.
        start_steps: of the parser before, of 600 words.
        start_learn_rate: at their beginning; it goes down to 0.
        warm_steps: steps of the joint training before the gradient through the trees is let in.
        dropout: of both components.
        vectors: a pipeline with word vectors, or None.
        parser_lstm: width of each direction of a BiLSTM in the parser; 0 for none.
    """

    data: Path | None
    sentences: int = 3000
    steps: int = 800
    words: int = 800
    start_steps: int = 200
    start_learn_rate: float = 0.002
    warm_steps: int = 60
    dropout: float = 0.2
    vectors: str | None = None
    parser_lstm: int = 0

    def recorded(self) -> dict[str, Any]:
        """As JSON has them. Not where the data is, which may be moved."""
        return asdict(self) | {"data": "generated" if self.data is None else "real"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training.

    Attributes:
        encoder: one of ``WIDTHS``.
        trees: sentences with a tree.
        system: one of ``SYSTEMS``.
        seed: of the draw, the start and the training.
        learn_rate: at the beginning; it goes down to 0.
        grad_factor: of the gradient through the trees.
    """

    encoder: str
    trees: int
    system: str
    seed: int
    learn_rate: float
    grad_factor: float

    def __str__(self) -> str:
        return f"{self.encoder}, {self.trees:,} trees, {self.system}, seed {self.seed}"


class Laboratory:
    """Trains cells below a folder; a finished one is read from there.

    Args:
        out: the folder.
        settings: those of all trainings in it.
    """

    def __init__(self, out: Path, settings: Settings):
        self.out = out
        self.settings = settings

    def folder(self, cell: Cell) -> Path:
        """Where a cell's pipeline is, and what it parsed: ``parsed.spacy``."""
        tried = f"{cell.seed}-{cell.learn_rate:g}-{cell.grad_factor:g}"
        return self.out / cell.encoder / str(cell.trees) / cell.system / tried

    def material(self, trees: int, seed: int) -> Path:
        """The folder of the data of a draw."""
        folder = self.out / "data" / f"{trees}-{seed}"
        Draw(self.settings.data, trees, self.settings.sentences, seed).write(folder)
        return folder

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train a cell, unless that is done.

        Returns:
            The cell's settings; its scores on dev after the last step in percent: ``accuracy``, ``uas``,
            ``las``; ``aside``, its accuracy on training sentences kept aside; ``start``, the scores of the
            parser it began with; ``seconds`` of CPU time.
        """
        start = None if cell.system == NO_TREES else self.start(cell.trees, cell.seed)

        def train() -> dict[str, Any]:
            began = time.process_time()
            data, folder = self.material(cell.trees, cell.seed), self.folder(cell)
            parser = {PARSER: self._start_folder(cell.trees, cell.seed) / LAST} if start else None
            nlp = train_from_scratch(CONFIG, folder, self._overrides(cell, data), parser, LAST)
            aside = 100 * nlp.meta["performance"]["tag_acc"]
            scores = self._scores(nlp, folder / "parsed.spacy")
            return scores | {"aside": aside, "seconds": time.process_time() - began}

        record = self.settings.recorded() | asdict(cell)
        return asdict(cell) | done_once(self.folder(cell) / "scores.json", record, train) | {"start": start}

    def start(self, trees: int, seed: int) -> dict[str, float]:
        """Scores of the parser that all systems of a seed begin with; it learns from its trees alone."""
        this, folder = self.settings, self._start_folder(trees, seed)

        def train() -> dict[str, float]:
            cell = Cell(
                encoder="word",
                trees=trees,
                system=PIPELINE,
                seed=seed,
                learn_rate=this.start_learn_rate,
                grad_factor=0.0,
            )
            data = self.material(trees, seed)
            alone = {
                "nlp.pipeline": [PARSER],
                "paths.dev": str(data / "trees.spacy"),
                "corpora.train.fractions.tags": 0.0,
                "corpora.train.fractions.trees": 1.0,
                "training.batcher.size": 600,
                "training.score_weights": {"dep_uas": 1.0},
            }
            same = Laboratory(self.out, replace(this, steps=this.start_steps))
            nlp = train_from_scratch(CONFIG, folder, same._overrides(cell, data) | alone, wanted=LAST)
            return self._scores(nlp, folder / "parsed.spacy")

        return done_once(folder / "scores.json", this.recorded(), train)

    def given(self, cell: Cell, path: Path) -> dict[str, float]:
        """Accuracy of a finished cell on a column file."""
        target = self.out / "data" / "test.spacy"
        write_given(path, target)
        nlp = spacy.load(self.folder(cell) / LAST)
        tagged = nlp.evaluate(list(create_corpus(target)(nlp)))
        return {GIVEN: 100 * tagged["tag_acc"]}

    def dev(self) -> Path:
        """The folder of the dev sentences."""
        folder = self.out / "data" / "dev"
        write_dev(self.settings.data, folder)
        return folder

    def _scores(self, nlp: Language, parsed: Path) -> dict[str, float]:
        """On dev, in percent; the trees that the pipeline gives to those of dev are saved in ``parsed``."""
        scores = {}
        if PARSER in nlp.pipe_names:
            parser, examples = nlp.get_pipe(PARSER), list(create_corpus(self.dev() / "trees.spacy")(nlp))
            docs = list(parser.pipe(example.predicted for example in examples))
            for example, doc in zip(examples, docs, strict=True):
                example.predicted = doc
            scores |= parser.score(examples)
            write_bytes(parsed, DocBin(["HEAD", "DEP"], docs=docs).to_bytes())
        if "tagger" in nlp.pipe_names:
            tagged = nlp.evaluate(list(create_corpus(self.dev() / "tags.spacy")(nlp)))
            scores["tag_acc"] = tagged["tag_acc"]
        return {name: 100 * scores[key] for key, name in SCORES.items() if key in scores}

    def _start_folder(self, trees: int, seed: int) -> Path:
        return self.out / "start" / str(trees) / str(seed)

    def _overrides(self, cell: Cell, data: Path) -> dict[str, Any]:
        this, alone = self.settings, cell.system == NO_TREES
        embed = _block("tagger", "embed")
        own = _encoder(cell.encoder, this.vectors)
        shares = words_in(data / "tags.spacy") / words_in(data / "trees.spacy")
        width = WIDTHS[cell.encoder]
        overrides = {
            "paths.tags": str(data / "tags.spacy"),
            "paths.trees": str(data / "trees.spacy"),
            "paths.dev": str(data / "aside.spacy"),
            "paths.vectors": this.vectors,
            "system.seed": cell.seed,
            "corpora.train.fractions.trees": 0.0 if alone else TREE_WORDS * shares,
            "components.tagger.model.tok2vec.embed": own if alone else embed | {"tok2vec": own},
            "components.tagger.model.tok2vec.encode.width": width if alone else PARTS * width,
            f"components.{PARSER}.surrogate": _surrogate(cell.system),
            f"components.{PARSER}.grad_factor": cell.grad_factor,
            f"components.{PARSER}.warm_steps": this.warm_steps,
            f"components.{PARSER}.model.lstm_width": this.parser_lstm,
            f"components.{PARSER}.model.lstm_depth": int(this.parser_lstm > 0),
            "training.dropout": this.dropout,
            "training.max_steps": this.steps,
            "training.eval_frequency": this.steps,
            "training.batcher.size": round(this.words * (1 if alone else 1 + TREE_WORDS)),
            **learn_rate(cell.learn_rate, this.steps),
        }
        return overrides | ({"nlp.pipeline": ["tagger"]} if alone else {})


def _block(component: str, name: str) -> dict[str, Any]:
    return util.load_config(CONFIG)["components"][component]["model"]["tok2vec"][name]


def _surrogate(system: str) -> str | dict[str, Any]:
    if system in ETA:
        return {"@misc": f"diffdecode.{system}.v1", "eta": ETA[system]}
    return PIPELINE if system == NO_TREES else system


def _encoder(name: str, vectors: str | None) -> dict[str, Any]:
    """The block of a word's own vector."""
    width = WIDTHS[name]
    embed = _block("tagger", "embed")["tok2vec"]
    embed = embed | {"width": width, "include_static_vectors": vectors is not None}
    if name == "word":
        return embed
    encode = {
        "window": {"@architectures": "spacy.MaxoutWindowEncoder.v2", "window_size": 1, "maxout_pieces": 2},
        "bilstm": {"@architectures": "spacy.TorchBiLSTMEncoder.v1", "dropout": 0.0},
    }[name]
    encode = encode | {"width": width, "depth": 1}
    return {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": encode}
