"""A frozen copy of a parser's model, as it was before finetuning."""

from collections.abc import Sequence
from copy import deepcopy

from spacy.tokens import Doc
from spacy.util import logger
from thinc.api import Model

from spacy_components.ml.listening.mailbox import got_batch
from spacy_components.ml.thinc_glue.parameters import parameters


class Original:
    """A model's scores before finetuning. It is no part of the pipeline: neither trained, averaged nor saved.

    Args:
        model: the model to copy.
        name: name of its component, for messages.
    """

    def __init__(self, model: Model, name: str):
        self._name = name
        self._model = deepcopy(model)  # Model.copy would make plain models of spacy-transformers' layers
        values = list(parameters(self._model).values())
        size = sum(value.nbytes for value in values)
        logger.info(
            "'%s' measures its drift: a frozen copy of %d parameters (%.1f MB) is kept",
            name,
            sum(value.size for value in values),
            size / 2**20,
        )

    def scores(self, docs: Sequence[Doc], model: Model):
        """Score documents without a gradient.

        Args:
            docs: the documents.
            model: the model that is being updated on them.

        Returns:
            what the original makes of them.
        """
        shared = next((node.name for node in model.walk() if got_batch(node)), None)
        if shared is not None:
            raise ValueError(
                f"the drift of '{self._name}' cannot be measured: its encoder ({shared}) is shared with a "
                "component that is being trained as well, so there is no original of it. Give the parser its "
                'own copy (where it is sourced: replace_listeners = ["model.tok2vec"]; else '
                "nlp.replace_listeners), or freeze that component and list it in annotating_components."
            )
        return self._model.predict(docs)
