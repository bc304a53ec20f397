"""What is said where a listener finds less than it expects: who listens, to whom, and what there is."""

import warnings

from spacy.tokens import Doc
from thinc.api import Model

from spacy_components.ml.listening.annotations import ANNOTATIONS
from spacy_components.ml.listening.mailbox import annotation_of


def nothing_to_read(model: Model, doc: Doc) -> str:
    """The error for a document without annotation whose upstream component cannot be asked.

    Args:
        model: the listener.
        doc: the document.

    Returns:
        The message.
    """
    mailbox = model.attrs["mailbox"]
    noun, who, upstream = annotation_of(model).noun, _owner(model), _expected(model)
    message = f"{who} reads the {noun} that {upstream} makes, and the document {doc.text!r:.60} has none. "
    if mailbox.pipe is None:
        return message + (
            f"{_who_is_there(model)} So {upstream} is excluded, not sourced, misspelt, of another kind, or "
            f"stands after {who}. Add or source it, or correct the upstream of the listener. A {noun} that "
            f"is on the document already, whoever made it, is read just as well. nlp.replace_listeners makes "
            f"{who} independent, as long as {upstream} is there."
        )
    return message + (
        f"'{mailbox.pipe.name}' did not see it: it is disabled, or frozen in training, or {who} is used "
        "without it; and it cannot be asked now, as it needs the outputs of another component. Enable it; if "
        "it is frozen, list it in [training.annotating_components] too (annotates=... of nlp.update); for "
        "nlp.rehearse, give documents that went through the pipeline."
    )


def warn_of_asking(model: Model, doc: Doc) -> None:
    """Say once for each layer that it had to ask the component upstream itself.

    Args:
        model: the listener.
        doc: a document without annotation.
    """
    mailbox = model.attrs["mailbox"]
    if mailbox.is_first_time("asked"):
        noun, who, upstream = annotation_of(model).noun, _owner(model), f"'{mailbox.pipe.name}'"
        warnings.warn(
            f"[D002] {who} found documents without a {noun}, such as {doc.text!r:.60}, and asked {upstream} "
            f"for it itself: the {noun} is right, but no gradient goes back. Either {upstream} is disabled, "
            f"or it is frozen and not listed in [training.annotating_components], or {who} is used without "
            f"it. Enable it, or make {who} independent of it with nlp.replace_listeners.",
            UserWarning,
            stacklevel=4,
        )


def warn_of_no_gradient(model: Model, when: str) -> None:
    """Say once for each layer and ``when`` that the pipeline trains, but not what its user may think.

    Args:
        model: the listener.
        when: ``"at initialization"`` or ``"in training"``.
    """
    mailbox = model.attrs["mailbox"]
    if mailbox.is_first_time(when):
        noun, maker = annotation_of(model).noun, annotation_of(model).maker
        warnings.warn(
            f"[D001] {_owner(model)} listens to {_expected(model)}, and there is no such {maker} before it "
            f"that it can train. {_who_is_there(model)} So it reads the {noun} that a document has from "
            "elsewhere; a document without one is an error. No gradient goes back: spaCy's own parser, for "
            "example, cannot be trained this way (spigot_parser and spigot_sdp can). To have it learn from "
            "the components after it, distil it into a spigot_parser: python -m spacy distill-parser",
            UserWarning,
            stacklevel=4,
        )


def warn_of_nobody_listening(pipe: str, others: list[str]) -> None:
    """Say that components are trained beside each other, which may be all that their user wants.

    Args:
        pipe: a component that others could listen to.
        others: those after it.
    """
    warnings.warn(
        f"[D005] Nothing listens to '{pipe}': {', '.join(map(repr, others))} cannot read what it decides, "
        "and it does not learn from them. spacy init config cannot connect them; python -m spacy "
        "init-diffdecode writes a config in which they are. If they shall be apart, set grad_factor = 0 in "
        f"'{pipe}'.",
        UserWarning,
        stacklevel=5,
    )


def _owner(model: Model) -> str:
    component = model.attrs["component"]
    return f"'{component}'" if component else f"a component with a {model.name}"


def _expected(model: Model) -> str:
    mailbox = model.attrs["mailbox"]
    return f"a {annotation_of(model).maker} ('*')" if mailbox.upstream == "*" else f"'{mailbox.upstream}'"


def _who_is_there(model: Model) -> str:
    before = sorted((pipe.name, ANNOTATIONS[pipe.kind].noun) for pipe in model.attrs["mailbox"].before)
    there = ", ".join(f"'{name}' (makes a {noun})" for name, noun in before) or "nothing"
    return f"What stands before it and can be listened to: {there}."
