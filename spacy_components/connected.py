"""Pipelines, and training configs, whose components are connected.

Each component reads all the structures that are made before it: semantic graphs are built on trees, end tasks
read trees and graphs. What the ready configs say already comes from them, the rest from the factories'
defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import spacy
from spacy import util
from spacy.language import FactoryMeta, Language
from thinc.api import Config

import spacy_components

CONFIGS = Path(spacy_components.__file__).parent / "configs"
Blocks = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """What a user asks for by one word.

    Attributes:
        name: of the component.
        factory: of the component.
        corpus: its corpus, whose files are ``paths.CORPUS`` and ``paths.dev_CORPUS``.
        annotation: what the documents of that corpus have.
        adds: of a component that others listen to, what its structures add to a word's vector.
    """

    name: str
    factory: str
    corpus: str
    annotation: str
    adds: str = ""

    def layer(self, tok2vec: Blocks) -> Blocks:
        """Word vectors, and what this component's structure adds to them."""
        concat, slot, listener = CONCATS[self.factory]
        return {
            "@architectures": concat,
            "tok2vec": tok2vec,
            slot: {"@architectures": listener, "upstream": self.name},
        }


CONCATS = {
    "spigot_parser": ("diffdecode.TreeConcat.v1", "parse", "diffdecode.ParseListener.v1"),
    "spigot_sdp": ("diffdecode.GraphConcat.v1", "graph", "diffdecode.GraphListener.v1"),
}
STRUCTURES = {
    "parser": Part(
        "spigot_parser",
        "spigot_parser",
        "parses",
        "heads and relations",
        "the vectors of its head and of its children",
    ),
    "sdp": Part(
        "spigot_sdp",
        "spigot_sdp",
        "graphs",
        "semantic graphs (doc._.sdp)",
        "the mean of its heads' vectors and of its roles",
    ),
}
END_TASKS = {
    "textcat": Part("textcat", "masked_textcat", "texts", "one category (doc.cats)"),
    "textcat_multilabel": Part(
        "textcat_multilabel", "masked_textcat_multilabel", "texts", "any number of categories (doc.cats)"
    ),
    "tagger": Part("tagger", "tagger", "tags", "tags (token.tag)"),
    "ner": Part("ner", "ner", "entities", "entities (doc.ents)"),
    "spancat": Part("spancat", "masked_spancat", "spans", "spans (doc.spans['sc'])"),
}
PARTS = STRUCTURES | END_TASKS


class Plan:
    """Which components there are, in their order, and where the first comes from.

    Args:
        words: names in ``PARTS``, in any order.
        lang: language code; by default that of the pretrained pipeline, or ``en``.
        vectors: folder or package with word vectors; by default those of the pretrained pipeline, if any.
        pretrained: folder or package of a pipeline whose parser (or semantic parser, if no parser is asked
            for) is tuned.
        load: reads the pretrained pipeline.

    Raises:
        ValueError: components that cannot be connected, or no such parser in the pretrained pipeline.
        OSError: there is no pretrained pipeline.
        ImportError: there is no such language.
    """

    def __init__(
        self,
        words: Sequence[str],
        lang: str | None = None,
        vectors: str | None = None,
        pretrained: str | None = None,
        load: Callable[[str], Language] = spacy.load,
    ):
        require_connectable(words)
        self.parts = [part for word, part in PARTS.items() if word in words]
        self.structures = [part for part in self.parts if part in STRUCTURES.values()]
        self.lang, self.vectors, self.pretrained = lang or "en", vectors, pretrained
        self.source: Blocks | None = None
        if pretrained is not None:
            nlp = load(pretrained)
            self.source = source_block(nlp, self.structures[0], pretrained)
            if lang not in (None, nlp.lang):
                raise ValueError(f"{pretrained} is a pipeline for {nlp.lang!r}, not for {lang!r}")
            self.lang = nlp.lang
            if vectors is None and len(nlp.vocab.vectors):
                self.vectors = pretrained
        self._blank = spacy.blank(self.lang)

    def defaults(self, part: Part) -> FactoryMeta:
        """What its factory says of itself. (A language has to be made before the factories are known.)"""
        return self._blank.get_factory_meta(part.factory)

    def read_by(self, part: Part) -> list[Part]:
        """The components whose structures it sees."""
        return [made for made in self.structures if self.parts.index(made) < self.parts.index(part)]

    def readers_of(self, part: Part) -> list[Part]:
        """The components that see its structures."""
        return [reader for reader in self.parts if part in self.read_by(reader)]

    @property
    def corpora(self) -> dict[str, str]:
        """Each corpus with what its documents have to have."""
        return {part.corpus: part.annotation for part in self.parts}

    @property
    def paths(self) -> list[str]:
        """The names of all files of these corpora."""
        return [f"{prefix}{name}" for name in self.corpora for prefix in ("", "dev_")]


def require_connectable(words: Sequence[str]) -> None:
    """Raises ValueError, in one line, for components that are unknown, or that nothing would connect."""
    for word in words:
        if word not in PARTS:
            near = get_close_matches(word, PARTS, 1)
            hint = f"did you mean {near[0]!r}? There are" if near else "there are"
            raise ValueError(f"no component {word!r}; {hint} {', '.join(PARTS)}")
    if len(set(words)) < len(words):
        raise ValueError(f"{', '.join(words)}: each component can be there once")
    if not set(words) & set(STRUCTURES):
        raise ValueError(f"{', '.join(words) or 'nothing'}: nothing to read; add parser, sdp, or both")
    if len(words) == 1:
        raise ValueError(
            f"nothing reads what {words[0]!r} makes; add one of {', '.join(END_TASKS)}. (For a parser alone: "
            f"{CONFIGS / 'parser.cfg'})"
        )
    if {"textcat", "textcat_multilabel"} <= set(words):
        raise ValueError("textcat and textcat_multilabel both write doc.cats; take one of them")


def source_block(nlp: Language, part: Part, pretrained: str) -> Blocks:
    """The block that takes a component from a pipeline. Raises ValueError where there is none of its kind."""
    names = [name for name in nlp.component_names if nlp.get_pipe_meta(name).factory == part.factory]
    if not names:
        hint = ""
        if "parser" in nlp.component_names:
            hint = (
                ". Its parser scores transitions and no gradient can reach it: python -m spacy distill-parser"
            )
        raise ValueError(
            f"{pretrained} has no {part.factory}, only {', '.join(nlp.component_names) or 'nothing'}{hint}"
        )
    block: Blocks = {"source": "${paths.parser}"}
    if names[0] != part.name:
        block["component"] = names[0]
    listeners = list(_listeners(nlp.config["components"][names[0]]["model"], "model"))
    return block | ({"replace_listeners": listeners} if listeners else {})


def _listeners(block: Blocks, path: str) -> Iterator[str]:
    """The places in a model where it listens to another component."""
    for name, value in block.items():
        if isinstance(value, dict):
            if "Listener" in value.get("@architectures", ""):
                yield f"{path}.{name}"
            yield from _listeners(value, f"{path}.{name}")


def connected_pipeline(words: Sequence[str], lang: str = "en", vectors: str | None = None) -> Language:
    """A new pipeline in which each component reads the structures that are made before it, and trains them.

    Args:
        words: any of ``PARTS``: ``["parser", "textcat"]``.
        lang: language code.
        vectors: folder or package with word vectors; ``nlp.initialize`` reads them.

    Returns:
        The pipeline, to be initialized with examples.

    Raises:
        ValueError: components that cannot be connected.
        ImportError: there is no such language.
    """
    config = connected_config(Plan(words, lang, vectors))
    config["initialize"]["components"] = {}  # labels come from the examples, not from a file
    return util.load_model_from_config(config, auto_fill=True, validate=False)


def connected_config(plan: Plan) -> Config:
    """The config, complete.

    Args:
        plan: which components.

    Returns:
        The config, with its variables as they are.
    """
    config = _ready("finetune_parser" if plan.source else "parser_textcat")
    known = _known_components()
    words = config["components"]["textcat"]["model"]["tok2vec"]["tok2vec"]
    config["paths"] = {
        **({"parser": plan.pretrained} if plan.source else {}),
        **dict.fromkeys(plan.paths),
        **{name: config["paths"][name] for name in ("train", "dev", "init_tok2vec")},
        "vectors": plan.vectors,
    }
    config["nlp"]["lang"] = plan.lang
    config["nlp"]["pipeline"] = [part.name for part in plan.parts]
    config["components"] = {}
    for part in plan.parts:
        layer = words
        for made in plan.read_by(part):
            layer = made.layer(layer)
        block = known.get(part) or {
            "factory": part.factory,
            "model": plan.defaults(part).default_config["model"],
        }
        config["components"][part.name] = block | {"model": block["model"] | {"tok2vec": layer}}
    for split, prefix in (("train", ""), ("dev", "dev_")):
        config["corpora"][split]["corpora"] = {
            name: {"@readers": "diffdecode.Corpus.v1", "path": f"${{paths.{prefix}{name}}}"}
            for name in plan.corpora
        }
        config["corpora"][split]["fractions"] = dict.fromkeys(plan.corpora, 1.0)
    config["training"]["score_weights"] = {}
    if STRUCTURES["sdp"] in plan.parts:
        config["initialize"]["components"] = _ready("sdp_textcat")["initialize"]["components"]
    if plan.source:
        return _tuned(config, plan)
    return _filled(config)


def _ready(name: str) -> Config:
    return util.load_config(CONFIGS / f"{name}.cfg", interpolate=False)


def _known_components() -> dict[Part, Blocks]:
    """Those of which a ready config says how they begin."""
    trees, graphs = _ready("parser_textcat")["components"], _ready("sdp_textcat")["components"]
    several = {"factory": "masked_textcat_multilabel"}
    several["model"] = trees["textcat"]["model"] | {"exclusive_classes": False}
    return {
        STRUCTURES["parser"]: trees["spigot_parser"],
        STRUCTURES["sdp"]: graphs["spigot_sdp"],
        END_TASKS["textcat"]: trees["textcat"],
        END_TASKS["textcat_multilabel"]: several,
    }


def _filled(config: Blocks) -> Config:
    """With the defaults of all that is registered. (Paths are not known yet, so nothing is checked here.)"""
    return util.load_model_from_config(Config(config), auto_fill=True, validate=False).config


def _tuned(config: Config, plan: Plan) -> Config:
    """With the first component from a pipeline, and with what keeps it as good as it was."""
    part = plan.structures[0]
    config["components"][part.name] = plan.source
    config["initialize"]["components"].pop(part.name, None)
    config["initialize"]["before_init"]["component"] = part.name
    config["training"]["logger"]["component"] = part.name
    config["corpora"]["train"]["fractions"][part.corpus] = 0.2
    own = plan.defaults(part).default_score_weights
    config["training"]["logger"]["metric"] = max(own, key=lambda name: own[name] or 0)
    filled = _filled(config)
    filled["components"][part.name] = plan.source
    weights = filled["training"]["score_weights"]
    weights |= {name: None if own[name] is None else 0.0 for name in own}
    total = sum(weight or 0 for weight in weights.values())
    weights |= {name: round(0.4 * weight / total, 2) for name, weight in weights.items() if weight}
    weights["guard"] = 0.6
    return filled
