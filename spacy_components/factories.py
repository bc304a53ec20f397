"""The factories that spaCy finds through entry points.

Every ``Language`` loads this module, so it imports the components themselves only when one is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spacy.language import Language
from thinc.api import Config, Model

import spacy_components.sdp_graph  # noqa: F401  (makes doc._.sdp known)

default_parser_config = """
[model]
@architectures = "diffdecode.BiaffineParser.v1"
hidden_width = 96
label_width = 32
max_distance = 16
between_width = 16
lstm_width = 0
lstm_depth = 0

[model.segmenter]
@misc = "diffdecode.lazy_segments.v1"
max_length = 192

[model.tok2vec]
@architectures = "diffdecode.HashEmbedCNN.v1"
vectors = null
width = 96
depth = 4
embed_size = 2000
window_size = 1
maxout_pieces = 3
subword_features = true
"""
DEFAULT_PARSER_MODEL = Config().from_str(default_parser_config)["model"]


@Language.factory(
    "spigot_parser",
    assigns=["token.dep", "token.head", "token.is_sent_start", "doc.sents"],
    default_config={
        "model": DEFAULT_PARSER_MODEL,
        "projective": True,
        "multi_root": True,
        "loss": "cross_entropy",
        "surrogate": "spigot",
        "surrogate_options": {},
        "eta": 1.0,
        "grad_factor": 1.0,
        "freeze": [],
        "drift": None,
        "drift_weight": 1.0,
        "scorer": {"@scorers": "diffdecode.parse_scorer.v1"},
    },
    default_score_weights={
        "dep_uas": 0.5,
        "dep_las": 0.5,
        "dep_las_per_type": None,
        "sents_p": None,
        "sents_r": None,
        "sents_f": 0.0,
    },
)
def make_spigot_parser(
    nlp: Language,
    name: str,
    model: Model,
    projective: bool,
    multi_root: bool,
    loss: str,
    surrogate: str,
    surrogate_options: dict[str, Any],
    eta: float,
    grad_factor: float,
    freeze: list[str],
    drift: str | None,
    drift_weight: float,
    scorer: Callable | None,
):
    """Make a ``SpigotParser``; see its docstring for the settings."""
    from spacy_components.pipeline.spigot_parser import SpigotParser

    return SpigotParser(
        nlp.vocab,
        model,
        name,
        projective=projective,
        multi_root=multi_root,
        loss=loss,
        surrogate=surrogate,
        surrogate_options=surrogate_options,
        eta=eta,
        grad_factor=grad_factor,
        freeze=freeze,
        drift=drift,
        drift_weight=drift_weight,
        scorer=scorer,
    )


default_sdp_config = """
[model]
@architectures = "diffdecode.BiaffineGraphParser.v1"
hidden_width = 128
label_width = 48
max_distance = 16
lstm_width = 0
lstm_depth = 0

[model.segmenter]
@misc = "diffdecode.lazy_segments.v1"
max_length = 96

[model.tok2vec]
@architectures = "diffdecode.HashEmbedCNN.v1"
vectors = null
width = 96
depth = 4
embed_size = 2000
window_size = 1
maxout_pieces = 3
subword_features = true
"""
DEFAULT_SDP_MODEL = Config().from_str(default_sdp_config)["model"]


@Language.factory(
    "spigot_sdp",
    assigns=["doc._.sdp"],
    default_config={
        "model": DEFAULT_SDP_MODEL,
        "deterministic": None,
        "loss": "local",
        "surrogate": "spigot",
        "surrogate_options": {},
        "eta": 1.0,
        "grad_factor": 1.0,
        "scorer": {"@scorers": "diffdecode.sdp_scorer.v1"},
    },
    default_score_weights={
        "sdp_lf": 1.0,
        "sdp_uf": None,
        "sdp_up": None,
        "sdp_ur": None,
        "sdp_um": None,
        "sdp_lp": None,
        "sdp_lr": None,
        "sdp_lm": None,
        "sdp_lf_per_type": None,
    },
)
def make_spigot_sdp(
    nlp: Language,
    name: str,
    model: Model,
    deterministic: list[str] | None,
    loss: str,
    surrogate: str,
    surrogate_options: dict[str, Any],
    eta: float,
    grad_factor: float,
    scorer: Callable | None,
):
    """Make a ``SpigotSdp``; see its docstring for the settings."""
    from spacy_components.pipeline.spigot_sdp import SpigotSdp

    return SpigotSdp(
        nlp.vocab,
        model,
        name,
        deterministic=deterministic,
        loss=loss,
        surrogate=surrogate,
        surrogate_options=surrogate_options,
        eta=eta,
        grad_factor=grad_factor,
        scorer=scorer,
    )
