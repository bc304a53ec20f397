"""``masked_textcat`` and ``masked_textcat_multilabel``: spaCy's text classifiers for partly labelled data."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from spacy.language import Language
from spacy.pipeline.textcat import DEFAULT_SINGLE_TEXTCAT_MODEL, TextCategorizer
from spacy.pipeline.textcat_multilabel import DEFAULT_MULTI_TEXTCAT_MODEL, MultiLabel_TextCategorizer
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Model

from spacy_components.ml.listening.upstream import require_upstreams
from spacy_components.ml.thinc_glue.untrusted import read_weights_only
from spacy_components.pipeline.own_rate import OwnRate


@Language.factory(
    "masked_textcat",
    assigns=["doc.cats"],
    default_config={
        "model": DEFAULT_SINGLE_TEXTCAT_MODEL,
        "threshold": 0.0,
        "step_size": 1.0,
        "scorer": {"@scorers": "diffdecode.cats_scorer.v1"},
    },
    default_score_weights={
        "cats_score": 1.0,
        "cats_score_desc": None,
        "cats_acc": None,
        "cats_micro_f": None,
        "cats_macro_f": None,
        "cats_macro_auc": None,
        "cats_f_per_type": None,
    },
)
def make_masked_textcat(
    nlp: Language, name: str, model: Model, threshold: float, step_size: float, scorer: Callable | None
) -> "MaskedTextCategorizer":
    """Same options as ``textcat``, and ``step_size``, a factor on the learning rate."""
    read_weights_only(model)
    return MaskedTextCategorizer(
        nlp.vocab, model, name, threshold=threshold, step_size=step_size, scorer=scorer
    )


@Language.factory(
    "masked_textcat_multilabel",
    assigns=["doc.cats"],
    default_config={
        "model": DEFAULT_MULTI_TEXTCAT_MODEL,
        "threshold": 0.5,
        "step_size": 1.0,
        "scorer": {"@scorers": "diffdecode.cats_scorer.v1", "multi_label": True},
    },
    default_score_weights={
        "cats_score": 1.0,
        "cats_score_desc": None,
        "cats_micro_f": None,
        "cats_macro_f": None,
        "cats_macro_auc": None,
        "cats_f_per_type": None,
    },
)
def make_masked_textcat_multilabel(
    nlp: Language, name: str, model: Model, threshold: float, step_size: float, scorer: Callable | None
) -> "MaskedMultiLabelTextCategorizer":
    """Same options as ``textcat_multilabel``, and ``step_size``, a factor on the learning rate."""
    read_weights_only(model)
    return MaskedMultiLabelTextCategorizer(
        nlp.vocab, model, name, threshold=threshold, step_size=step_size, scorer=scorer
    )


class LabelledOnly(OwnRate, TextCategorizer):
    """What the two have in common: a document counts if it is labelled, and has scores if it has words."""

    def predict(self, docs: Iterable[Doc]) -> np.ndarray:
        """Scores ``[B, L]``. A document without words has none, 0 throughout: ``textcat`` says so when it is
        alone, and gives it the score of no words in company."""
        docs = list(docs)
        scores = super().predict(docs)
        filled = self.model.ops.asarray2f([[bool(len(doc))] for doc in docs]) if docs else scores
        return scores * filled

    def set_annotations(self, docs: Iterable[Doc], scores: np.ndarray) -> None:
        """Write the scores ``[B, L]``; ``textcat`` fetches each one from a GPU by itself."""
        super().set_annotations(docs, self.model.ops.to_numpy(scores))

    def _examples_to_truth(self, examples: Iterable[Example]) -> tuple[np.ndarray, np.ndarray]:
        examples = list(examples)
        truths, not_missing = super()._examples_to_truth(examples)
        not_missing[[not example.reference.cats for example in examples]] = 0.0
        return truths, not_missing

    def get_loss(self, examples: Iterable[Example], scores: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean squared error over labelled documents, and the gradient ``[B, L]``, 0 for the others."""
        examples = list(examples)
        loss, d_scores = super().get_loss(examples, scores)
        labelled = sum(bool(example.reference.cats) for example in examples)
        return loss * len(examples) / max(labelled, 1), d_scores


class MaskedTextCategorizer(LabelledOnly):
    """Learns from the documents that have a category and gives the others no gradient and no loss.

    spaCy's ``textcat`` reads a document without ``cats`` as one where every category is wrong. A document
    with some of the labels is complete: as in ``textcat``, categories it does not mention are 0.
    """

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
        positive_label: str | None = None,
    ) -> None:
        """As ``textcat`` does, after a check that every listener in the pipeline has someone to listen to."""
        require_upstreams(nlp, get_examples)
        super().initialize(get_examples, nlp=nlp, labels=labels, positive_label=positive_label)


class MaskedMultiLabelTextCategorizer(LabelledOnly, MultiLabel_TextCategorizer):
    """Learns from the categories that a document says something about, as ``textcat_multilabel`` does, and is
    scored on these alone. Those that it does not mention are unknown, not 0.
    """

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """As ``textcat_multilabel`` does, after a check that every listener in the pipeline has someone to
        listen to."""
        require_upstreams(nlp, get_examples)
        super().initialize(get_examples, nlp=nlp, labels=labels)
