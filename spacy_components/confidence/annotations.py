"""What a parser writes on a document about its confidence, if its setting ``confidence`` says so.

``doc._.head_probs`` (a list, one probability a token), ``token._.head_prob`` (that of the token) and
``doc._.tree_entropy`` (nats) are ``None`` where nothing is known. They are plain data: they survive
``to_bytes``, ``nlp.pipe`` with ``n_process``, and a ``DocBin(store_user_data=True)``.
"""

from collections.abc import Mapping, Sequence

from spacy.tokens import Doc, Token

HEAD_PROBS, TREE_ENTROPY = "head_probs", "tree_entropy"
CONFIDENCE = (HEAD_PROBS, TREE_ENTROPY)
"""Extensions of a document, which are also the values of the setting."""


def head_prob(token: Token) -> float | None:
    """The probability of the token's head, or ``None`` where it is not known.

    Args:
        token: the token.

    Raises:
        ValueError: the document was retokenised after it was parsed.
    """
    probabilities = token.doc._.get(HEAD_PROBS)
    if probabilities is None:
        return None
    if len(probabilities) != len(token.doc):
        raise ValueError(
            f"doc._.{HEAD_PROBS} has {len(probabilities)} values and {token.doc.text!r:.60} has "
            f"{len(token.doc)} tokens: it was retokenised since. Parse it again, or set it to None."
        )
    return probabilities[token.i]


for name in CONFIDENCE:
    if not Doc.has_extension(name):
        Doc.set_extension(name, default=None)
if not Token.has_extension("head_prob"):
    Token.set_extension("head_prob", getter=head_prob)


def write(docs: Sequence[Doc], measured: Mapping[str, Sequence]) -> None:
    """Write what was measured of the trees that are written now; what was known of others is forgotten.

    Args:
        docs: the documents.
        measured: by the names in ``CONFIDENCE``, a value for each document.
    """
    for number, doc in enumerate(docs):
        for name in CONFIDENCE:
            if name in measured:
                doc._.set(name, measured[name][number])
            elif doc._.get(name) is not None:
                doc._.set(name, None)
