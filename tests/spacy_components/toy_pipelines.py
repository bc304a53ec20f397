"""Small documents and pipelines that the tests of the components share."""

import numpy as np
import spacy
from spacy.language import BaseDefaults
from spacy.tokens import Doc, Span
from spacy.training import Example
from thinc.api import fix_random_seed, to_numpy

from spacy_components.sdp_graph import set_graph

# Of a language of no name ("xx"): smileys, of which there are none in the toy texts. A new tokenizer reads
# them one by one, which is two fifths of the time that a blank pipeline takes.
BaseDefaults.tokenizer_exceptions = {}

SENTENCES = [
    ("the small cat saw a dog .", [2, 2, 3, 3, 5, 3, 3], "det amod nsubj ROOT det obj punct"),
    ("dogs bark", [1, 1], "nsubj ROOT"),
    ("she gave him the old book yesterday .", [1, 1, 1, 5, 5, 1, 1, 1],
     "nsubj ROOT iobj det amod obj advmod punct"),
    ("go !", [0, 0], "ROOT punct"),
    ("a man with a telescope saw the boy", [1, 5, 4, 4, 1, 5, 7, 5], "det nsubj case det nmod ROOT det obj"),
    ("run", [0], "ROOT"),
]  # fmt: skip
TOK2VEC = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": 16,
    "depth": 1,
    "embed_size": 200,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": True,
}
SHARED = {"@architectures": "spacy.Tok2VecListener.v1", "width": 16, "upstream": "*"}
SEGMENTER = {"@misc": "diffdecode.lazy_segments.v1", "max_length": 192}


def parsed_docs(vocab):
    """Documents with trees, semantic graphs, tags, entities, spans and categories."""
    docs = []
    for text, heads, deps in SENTENCES:
        words = text.split()
        tags = ["LONG" if len(word) > 3 else "SHORT" for word in words]
        doc = Doc(vocab, words=words, heads=heads, deps=deps.split(), tags=tags)
        arcs = [(head, dep, f"ARG{1 + (dep > head)}") for dep, head in enumerate(heads) if dep != head]
        arcs += [(0, 1, "mwe")] if len(words) > 4 else []
        top = [heads.index(i) for i in range(len(heads)) if heads[i] == i]
        for key in ("sdp", "dm"):
            set_graph(doc, dict.fromkeys(arcs), top, key)
        set_graph(doc, turned(arcs), top, "eud")
        doc.set_ents([doc.char_span(0, len(words[0]), label="X")])
        doc.spans["sc"] = [doc.char_span(0, len(words[0]), label="Y")]
        doc.cats = {"POS": float(len(words) > 4), "NEG": float(len(words) <= 4)}
        docs.append(doc)
    return docs


def turned(arcs):
    """The arcs of another formalism: the other way round, and with labels of its own."""
    return {(dep, head, "fixed" if label == "mwe" else "PAT") for head, dep, label in arcs}


def bare(doc):
    """The words alone."""
    return Doc(doc.vocab, words=[t.text for t in doc], spaces=[bool(t.whitespace_) for t in doc])


def only(doc, *annotations):
    """A copy that keeps only some of ``parse``, ``graph``, ``cats``, ``tags``, ``ents``, ``spans``."""
    copy = bare(doc)
    if "parse" in annotations:
        heads, deps = [t.head.i for t in doc], [t.dep_ for t in doc]
        copy = Doc(doc.vocab, words=[t.text for t in doc], heads=heads, deps=deps)
    if "graph" in annotations:
        for key in ("sdp", "dm", "eud"):
            copy._.set(key, doc._.get(key))
    if "cats" in annotations:
        copy.cats = doc.cats
    if "tags" in annotations:
        for token, tagged in zip(copy, doc):
            token.tag_ = tagged.tag_
    if "ents" in annotations:
        copy.set_ents([Span(copy, ent.start, ent.end, ent.label_) for ent in doc.ents])
    if "spans" in annotations:
        copy.spans["sc"] = [Span(copy, span.start, span.end, span.label_) for span in doc.spans["sc"]]
    return copy


def example(doc):
    return Example(bare(doc), doc)


def parser_config(tok2vec=TOK2VEC, **settings):
    model = {
        "@architectures": "diffdecode.BiaffineParser.v1",
        "hidden_width": 16,
        "label_width": 8,
        "tok2vec": tok2vec,
        "segmenter": SEGMENTER,
    }
    return {"model": model, **settings}


def sdp_config(tok2vec=TOK2VEC, **settings):
    model = {
        "@architectures": "diffdecode.BiaffineGraphParser.v1",
        "hidden_width": 16,
        "label_width": 8,
        "tok2vec": tok2vec,
        "segmenter": SEGMENTER,
    }
    return {"model": model, **settings}


def joint_config(tok2vec=TOK2VEC, own=None, **settings):
    model = {
        "@architectures": "diffdecode.JointGraphParser.v1",
        "hidden_width": 16,
        "label_width": 8,
        "rank": 4,
        "pair_heads": 2,
        "tok2vec": tok2vec,
        "first": own,
        "second": own,
        "segmenter": SEGMENTER,
    }
    return {"model": model, **settings}


def head_concat(tok2vec=TOK2VEC, upstream="spigot_parser"):
    parse = {"@architectures": "diffdecode.ParseListener.v1", "upstream": upstream}
    return {"@architectures": "diffdecode.HeadConcat.v1", "tok2vec": tok2vec, "parse": parse}


def soft_head_concat(tok2vec=TOK2VEC, upstream="spigot_parser"):
    parse = {"@architectures": "diffdecode.SoftParseListener.v1", "upstream": upstream}
    return {"@architectures": "diffdecode.SoftHeadConcat.v1", "tok2vec": tok2vec, "parse": parse}


def tree_concat(children="sum", grandparent=False, upstream="spigot_parser"):
    return {
        "@architectures": "diffdecode.TreeConcat.v1",
        "tok2vec": TOK2VEC,
        "parse": {"@architectures": "diffdecode.ParseListener.v1", "upstream": upstream},
        "children": children,
        "grandparent": grandparent,
    }


def graph_concat(tok2vec=TOK2VEC, upstream="spigot_sdp", dependents=False, key=""):
    graph = {"@architectures": "diffdecode.GraphListener.v1", "upstream": upstream, "key": key}
    return {
        "@architectures": "diffdecode.GraphConcat.v1",
        "tok2vec": tok2vec,
        "graph": graph,
        "role_width": 4,
        "dependents": dependents,
    }


def textcat_config(tok2vec, exclusive=True):
    model = {
        "@architectures": "spacy.TextCatReduce.v1",
        "exclusive_classes": exclusive,
        "use_reduce_first": False,
        "use_reduce_last": False,
        "use_reduce_max": False,
        "use_reduce_mean": True,
        "tok2vec": tok2vec,
    }
    return {"model": model}


def tagger_config(tok2vec):
    return {"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": tok2vec}}


def ner_config(tok2vec):
    model = {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": "ner",
        "extra_state_tokens": False,
        "hidden_width": 16,
        "maxout_pieces": 2,
        "use_upper": True,
        "tok2vec": tok2vec,
    }
    return {"model": model}


def spancat_config(tok2vec):
    model = {
        "@architectures": "spacy.SpanCategorizer.v1",
        "reducer": {"@layers": "spacy.mean_max_reducer.v1", "hidden_size": 16},
        "scorer": {"@layers": "spacy.LinearLogistic.v1"},
        "tok2vec": tok2vec,
    }
    return {"model": model, "suggester": {"@misc": "spacy.ngram_suggester.v1", "sizes": [1, 2]}}


def small_tok2vecs(config, prefix=""):
    """Overrides that make every tok2vec of a config small."""
    overrides = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            overrides |= small_tok2vecs(value, f"{path}.")
            if value.get("@architectures") == "diffdecode.HashEmbedCNN.v1":
                overrides |= {f"{path}.width": 16, f"{path}.depth": 1, f"{path}.embed_size": 100}
    return overrides


def make_pipeline(*pipes, docs=None, seed=0, initialize=None):
    """A pipeline of (factory, config) or (factory, config, name), initialized on ``docs``, and its examples.

    ``initialize`` is the config's block ``[initialize.components]``.

    spaCy's classification layers start at 0 and so send a zero gradient back from their first batch: they get
    random weights here, so that one batch is enough for a test.
    """
    fix_random_seed(seed)
    nlp = spacy.blank("xx")
    for factory, config, *name in pipes:
        nlp.add_pipe(factory, name=name[0] if name else factory, config=config)
    examples = [example(doc) for doc in (parsed_docs(nlp.vocab) if docs is None else docs(nlp.vocab))]
    full = [example(doc) for doc in parsed_docs(nlp.vocab)]
    nlp.config["initialize"]["components"] = initialize or {}
    nlp.initialize(lambda: full)
    rng = np.random.RandomState(seed)
    for _, pipe in nlp.pipeline:
        layer = pipe.model.maybe_get_ref("output_layer") if hasattr(pipe, "model") else None
        if layer is not None and layer.has_param("W"):
            layer.set_param("W", layer.ops.asarray(rng.randn(*layer.get_param("W").shape).astype("f")))
    return nlp, examples


def joint(textcat="masked_textcat", shared=False, docs=None, **settings):
    """Parser and text classifier on its trees."""
    tok2vec = SHARED if shared else TOK2VEC
    first = [("tok2vec", {"model": TOK2VEC})] if shared else []
    return make_pipeline(
        *first,
        ("spigot_parser", parser_config(tok2vec, **settings)),
        (textcat, textcat_config(head_concat(tok2vec)), "textcat"),
        docs=docs,
    )


def train_step(nlp, examples, optimizer, **options):
    """One batch the way ``spacy train`` does it."""
    losses = nlp.update(examples, sgd=False, losses={}, **options)
    for name, pipe in nlp.pipeline:
        if name not in options.get("exclude", ()):
            pipe.finish_update(optimizer)
    return losses


def learn(nlp, examples, optimizer, learned, *, at_most):
    """Updates until ``learned(losses)``, which is asked after every tenth of them."""
    for step in range(1, at_most + 1):
        losses = nlp.update(examples, sgd=optimizer, losses={})
        if step % 10 == 0 and learned(losses):
            return


def module_of(nlp, name="spigot_parser"):
    """The torch module in a component's model."""
    return nlp.get_pipe(name).model.shims[0].module


def torch_weights(nlp, name="spigot_parser"):
    return {key: value.detach().clone() for key, value in module_of(nlp, name).named_parameters()}


def torch_gradients(nlp, name="spigot_parser"):
    return {
        key: value.grad for key, value in module_of(nlp, name).named_parameters() if value.grad is not None
    }


def change(before, after):
    return max(float((before[key] - after[key]).abs().max()) for key in before)


def thinc_gradients(model):
    return {
        (i, name): np.array(to_numpy(node.get_grad(name)))
        for i, node in enumerate(model.walk())
        for name in node.grad_names
        if node.has_grad(name)
    }
