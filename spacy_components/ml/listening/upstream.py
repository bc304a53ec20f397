"""Whether every listener in a pipeline has somebody to listen to."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from spacy.language import Language
from spacy.training import Example
from thinc.api import Model

from spacy_components.ml.listening.annotations import ANNOTATIONS, Annotation
from spacy_components.ml.listening.mailbox import annotation_of, listening_nodes


def require_upstreams(nlp: Language | None, get_examples: Callable[[], Iterable[Example]]) -> None:
    """Check that what each listener expects is there, before anything is trained.

    A component upstream may be disabled or frozen. One that is not of this package is believed to annotate
    (what it ``assigns`` is only looked at for the wildcard ``"*"``). Nothing is expected where the documents
    come with the annotation.

    Args:
        nlp: the pipeline; nothing is checked without one.
        get_examples: a function that returns a sample of examples.

    Raises:
        ValueError: a component upstream does not exist, stands after its listener or decides about something
            else; the message names both components.
    """
    if nlp is None:
        return
    for position, (name, component) in enumerate(nlp.components):
        for node in listening_nodes(component):
            problem = _problem(nlp, position, node)
            if problem is not None and _any_missing(annotation_of(node), get_examples):
                raise ValueError(f"'{name}' {problem}")


def _any_missing(annotation: Annotation, get_examples: Callable[[], Iterable[Example]]) -> bool:
    return any(annotation.is_missing(example.predicted) for example in islice(get_examples(), 10))


def _problem(nlp: Language, position: int, node: Model) -> str | None:
    mailbox = node.attrs["mailbox"]
    annotation, upstream = annotation_of(node), mailbox.upstream
    before, after = nlp.components[:position], nlp.components[position + 1 :]
    able = [name for name, pipe in before if _makes(nlp, name, pipe, node)]
    there = f"Before it there is {', '.join(map(repr, able)) or f'no {annotation.maker}'}."
    if upstream == "*":
        if able:
            return None
        return (
            f"reads a {annotation.noun} ('*'), and no component makes one. {there} Add one before it; if "
            "there is one that does not say so in its factory's 'assigns', name it as the upstream."
        )
    reads = f"reads the {annotation.noun} that '{upstream}' makes, but "
    if upstream in dict(after):
        return f"{reads}'{upstream}' stands after it. {there} Move '{upstream}' before it."
    if upstream not in dict(before):
        return f"{reads}there is no component '{upstream}'. {there} Add it earlier, or correct the upstream."
    kind = getattr(dict(before)[upstream], "kind", mailbox.kind)
    if kind in ANNOTATIONS and kind != mailbox.kind:
        made = ANNOTATIONS[kind].noun
        return f"{reads}'{upstream}' makes a {made}. {there} Correct the listener's upstream."
    return None


def _makes(nlp: Language, name: str, pipe: Any, node: Model) -> bool:
    assigned = nlp.get_pipe_meta(name).assigns
    same_kind = getattr(pipe, "kind", None) == node.attrs["mailbox"].kind
    return same_kind or any(attribute in assigned for attribute in annotation_of(node).attributes)
