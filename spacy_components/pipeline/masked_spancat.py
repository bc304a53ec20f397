"""``masked_spancat``: spaCy's span categoriser for corpora where some documents are not annotated."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from spacy.language import Language
from spacy.pipeline.spancat import DEFAULT_SPANCAT_MODEL, DEFAULT_SPANS_KEY, SpanCategorizer, Suggester
from spacy.training import Example
from thinc.api import Model
from thinc.types import Ragged

from spacy_components.ml.listening.upstream import require_upstreams
from spacy_components.ml.thinc_glue.untrusted import read_weights_only
from spacy_components.pipeline.own_rate import OwnRate


@Language.factory(
    "masked_spancat",
    assigns=["doc.spans"],
    default_config={
        "model": DEFAULT_SPANCAT_MODEL,
        "spans_key": DEFAULT_SPANS_KEY,
        "threshold": 0.5,
        "max_positive": None,
        "step_size": 1.0,
        "suggester": {"@misc": "spacy.ngram_suggester.v1", "sizes": [1, 2, 3]},
        "scorer": {"@scorers": "spacy.spancat_scorer.v1"},
    },
    default_score_weights={"spans_sc_f": 1.0, "spans_sc_p": 0.0, "spans_sc_r": 0.0},
)
def make_masked_spancat(
    nlp: Language,
    name: str,
    model: Model,
    suggester: Suggester,
    spans_key: str,
    threshold: float,
    max_positive: int | None,
    step_size: float,
    scorer: Callable | None,
) -> "MaskedSpanCategorizer":
    """Same options as ``spancat``, and ``step_size``, a factor on the learning rate."""
    read_weights_only(model)
    return MaskedSpanCategorizer(
        nlp.vocab,
        model,
        suggester,
        name,
        spans_key=spans_key,
        threshold=threshold,
        max_positive=max_positive,
        step_size=step_size,
        scorer=scorer,
    )


class MaskedSpanCategorizer(OwnRate, SpanCategorizer):
    """Learns from the documents that have the spans key and gives the others no gradient and no loss.

    spaCy's ``spancat`` reads a document without ``doc.spans[spans_key]`` as one where no candidate is a span.
    A document with an empty group under the key is annotated: it has no spans.
    """

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """As ``spancat`` does, after a check that every listener in the pipeline has someone to listen to."""
        require_upstreams(nlp, get_examples)
        super().initialize(get_examples, nlp=nlp, labels=labels)

    def get_loss(
        self, examples: Iterable[Example], spans_scores: tuple[Ragged, np.ndarray]
    ) -> tuple[float, np.ndarray]:
        """The squared error and its gradient ``[candidates, L]``, both over annotated documents."""
        examples = list(examples)
        _, d_scores = super().get_loss(examples, spans_scores)
        annotated = [self.key in example.reference.spans for example in examples]
        lengths = self.model.ops.to_numpy(spans_scores[0].lengths)
        d_scores *= self.model.ops.asarray2f(np.repeat(annotated, lengths)[:, None].astype("float32"))
        return float((d_scores**2).sum()), d_scores
