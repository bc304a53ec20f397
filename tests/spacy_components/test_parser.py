"""spigot_parser by itself: what it learns, what it writes, and what spaCy needs of a component."""

import gc
import itertools
import multiprocessing
import os
import sys

import numpy as np
import pytest
import spacy
import torch
from patience import HANGS_AFTER
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from thinc.api import SGD, Adam, Model, fix_random_seed
from toy_pipelines import (
    SENTENCES,
    TOK2VEC,
    bare,
    change,
    example,
    head_concat,
    joint,
    learn,
    make_pipeline,
    only,
    parsed_docs,
    parser_config,
    sdp_config,
    textcat_config,
    torch_gradients,
    torch_weights,
    train_step,
)

from diffdecode.structure import TreeKind, nonprojective_tree, projective_tree
from spacy_components.ml.segments import lazy_segments, segment_docs, sentences, whole_docs
from spacy_components.ml.trees.losses import TREE_LOSSES
from spacy_components.ml.trees.models import build_biaffine_parser
from spacy_components.ml.trees.scorers import BetweenScores, DistanceScores
from spacy_components.pipeline.gold_trees import aligned_tree, crosses, gold_heads


def parser(**settings):
    return make_pipeline(("spigot_parser", parser_config(**settings)))


def read(doc):
    return [t.head.i for t in doc], [t.dep_ for t in doc]


# ---- learning


@pytest.mark.parametrize("loss", sorted(TREE_LOSSES))
@pytest.mark.parametrize("projective", [True, False])
def test_parser_overfits(loss, projective):
    nlp, examples = parser(loss=loss, projective=projective, multi_root=False)
    optimizer = Adam(0.02)
    first = nlp.update(examples, sgd=optimizer, losses={})["spigot_parser"]

    def learned(losses):
        return losses["spigot_parser"] < first / 10 and nlp.evaluate(examples)["dep_las"] == 1.0

    learn(nlp, examples, optimizer, learned, at_most=40)
    assert nlp.update(examples, sgd=False, losses={})["spigot_parser"] < first / 10
    for given, gold in zip(nlp.pipe([bare(eg.reference) for eg in examples]), examples):
        assert read(given) == read(gold.reference)
    scores = nlp.evaluate(examples)
    assert scores["dep_uas"] == scores["dep_las"] == 1.0


def test_between_scores_sum_over_the_words_in_between():
    torch.manual_seed(0)
    layer, words, dependents = BetweenScores(5, 6, 4), torch.randn(2, 7, 5), torch.randn(2, 7, 6)
    scores, features = layer(words, dependents), torch.relu(layer.feature(words))
    for b, m, h in itertools.product(range(2), range(1, 8), range(8)):
        if h != m:
            between = features[b, min(m, h) : max(m, h) - 1].sum(0)
            weights = (layer.to_left if h < m else layer.to_right)(dependents[b, m - 1])
            torch.testing.assert_close(scores[b, m - 1, h], weights @ between)


def test_distance_scores_are_signed_and_clipped():
    torch.manual_seed(0)
    layer, dependents = DistanceScores(6, 2), torch.randn(1, 5, 6)
    scores, by_distance = layer(dependents), layer.by_distance(dependents)
    for m, h in itertools.product(range(1, 6), range(6)):
        assert scores[0, m - 1, h] == by_distance[0, m - 1, min(max(h - m, -2), 2) + 2]


def test_bilstm_mlp_parser_overfits():
    model = {
        "@architectures": "diffdecode.BiLstmMlpParser.v1",
        "hidden_width": 16,
        "label_width": 16,
        "lstm_width": 12,
        "lstm_depth": 2,
        "tok2vec": TOK2VEC,
        "segmenter": {"@misc": "diffdecode.whole_docs.v1"},
    }
    nlp, examples = make_pipeline(("spigot_parser", {"model": model, "loss": "hinge"}))

    def learned(_):
        return nlp.evaluate(examples)["dep_las"] == 1.0

    learn(nlp, examples, Adam(0.02), learned, at_most=80)
    assert learned({})


def test_default_config_needs_no_settings():
    nlp = spacy.blank("xx")
    nlp.add_pipe("spigot_parser")
    examples = [example(doc) for doc in parsed_docs(nlp.vocab)]
    optimizer = nlp.initialize(lambda: examples)
    for _ in range(25):
        nlp.update(examples, sgd=optimizer)
    doc = nlp("the small cat saw a dog .")
    assert doc.has_annotation("DEP") and [sent.text for sent in doc.sents] == [doc.text]


def test_documents_without_a_parse_give_no_loss_and_no_gradient():
    nlp, examples = parser()
    unparsed = [example(bare(eg.reference)) for eg in examples]
    losses = nlp.update(unparsed, sgd=False, losses={})
    assert losses == {"spigot_parser": 0.0} and not torch_gradients(nlp)
    alone, _ = parser()
    nlp.update([*examples, *unparsed], sgd=False)
    alone.update(examples, sgd=False)
    for name, gradient in torch_gradients(alone).items():
        assert torch.allclose(gradient, torch_gradients(nlp)[name], atol=1e-5)


@pytest.mark.parametrize("loss", sorted(TREE_LOSSES))
def test_partly_annotated_sentence_gives_no_gradient_where_nothing_is_known(loss):
    """The other words' gold heads may be wrong for all that the loss knows: only known rows can matter."""
    arcs = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lengths, trees = torch.tensor([4]), TreeKind(projective=True, multi_root=True)
    gold = torch.tensor([[2, -1, 2, -1]])
    leaf = arcs.clone().requires_grad_()
    TREE_LOSSES[loss](leaf, lengths, gold, trees).backward()
    assert torch.isfinite(leaf.grad).all()
    if loss == "cross_entropy":
        assert (leaf.grad[0, [2, 4]] == 0).all() and (leaf.grad[0, [1, 3]] != 0).any()
    # raising the scores of the known arcs far enough, nothing is left to learn
    certain = arcs.clone()
    certain[0, 1, 2] += 100
    certain[0, 3, 2] += 100
    certain.requires_grad_()
    value = TREE_LOSSES[loss](certain, lengths, gold, trees)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-9) and certain.grad.abs().max() < 1e-9


def test_loss_gradients_are_those_of_finite_differences():
    arcs = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gold, lengths = torch.tensor([[2, 0, 2, 3], [0, 1, -1, -1]]), torch.tensor([4, 3])
    for projective in (True, False):
        for loss in TREE_LOSSES.values():
            trees = TreeKind(projective=projective, multi_root=True)
            leaf = arcs.clone().requires_grad_()
            assert torch.autograd.gradcheck(lambda x: loss(x, lengths, gold, trees), leaf)  # noqa: B023


def test_unlabelled_parser_without_any_treebank():
    """Latent trees: no parse in the data at all, the arcs are then called 'dep'."""
    nlp = spacy.blank("xx")
    nlp.add_pipe("spigot_parser", config=parser_config())
    nlp.add_pipe("masked_textcat", "textcat", config=textcat_config(head_concat()))
    examples = [example(only(doc, "cats")) for doc in parsed_docs(nlp.vocab)]
    nlp.initialize(lambda: examples)
    assert nlp.get_pipe("spigot_parser").labels == ()
    assert set(read(nlp("the cat saw a dog"))[1]) <= {"dep", "ROOT"}


@pytest.mark.parametrize("config", [parser_config, sdp_config])
def test_nothing_to_learn_from_is_one_line(config):
    factory = {parser_config: "spigot_parser", sdp_config: "spigot_sdp"}[config]
    nlp = spacy.blank("xx")
    nlp.add_pipe(factory, config=config())
    with pytest.raises(ValueError, match=f"'{factory}': no examples .*: is the corpus empty"):
        nlp.initialize(lambda: iter(()))  # as a corpus that spaCy reads
    with pytest.raises(ValueError, match=f"'{factory}': no (label found|example has a dependency tree)"):
        nlp.initialize(lambda: [example(only(doc, "cats")) for doc in parsed_docs(nlp.vocab)])


def test_settings_are_checked():
    nlp = spacy.blank("xx")
    with pytest.raises(ValueError, match=r"no loss 'nll'.*likelihood"):
        nlp.add_pipe("spigot_parser", config={"loss": "nll"})
    with pytest.raises(ValueError, match=r"unknown surrogate 'spigott'.*spigot"):
        nlp.add_pipe("spigot_parser", config={"surrogate": "spigott"})
    with pytest.raises(ValueError, match="structured_st"):
        nlp.add_pipe("spigot_parser", config={"surrogate": "marginals"})
    with pytest.raises(ValueError, match="eta"):
        nlp.add_pipe("spigot_parser", config={"eta": -1.0})
    with pytest.raises(TypeError, match="etta"):
        nlp.add_pipe("spigot_parser", config={"surrogate_options": {"etta": 1.0}})


def test_labels_come_from_the_data_and_are_fixed_then():
    nlp, _ = parser()
    pipe = nlp.get_pipe("spigot_parser")
    assert "ROOT" not in pipe.labels and pipe.labels == tuple(sorted(pipe.labels)) == pipe.label_data
    assert pipe.add_label("nsubj") == 0
    with pytest.raises(ValueError, match="cannot take more"):
        pipe.add_label("new")
    fresh = spacy.blank("xx")
    given = fresh.add_pipe("spigot_parser", config=parser_config())
    fresh.initialize(lambda: [example(doc) for doc in parsed_docs(fresh.vocab)])
    assert given.labels == pipe.labels


def test_loss_rises_by_one_update_per_batch_only():
    nlp, examples = parser()
    losses = {"spigot_parser": 5.0}
    nlp.get_pipe("spigot_parser").update(examples, losses=losses)
    assert losses["spigot_parser"] > 5.0


# ---- prediction


def untrained(**settings):
    nlp, examples = parser(**settings)
    nlp.update(examples, sgd=Adam(0.05))
    return nlp, [eg.reference for eg in examples]


def test_heads_do_not_depend_on_the_batch():
    nlp, docs = untrained()
    texts = [doc.text for doc in docs] * 4 + ["", " ", "\n\n", "one", "a b " * 150]
    alone = [read(nlp(text)) for text in texts]
    for batch_size in (1, 3, 1000):
        assert [read(doc) for doc in nlp.pipe(texts, batch_size=batch_size)] == alone
    assert [read(doc) for doc in nlp.pipe(texts, n_process=2, batch_size=4)] == alone


def test_scores_do_not_depend_on_padding():
    nlp, docs = untrained()
    model = nlp.get_pipe("spigot_parser").model
    together = model.predict([bare(doc) for doc in docs])
    for part in together.scores:
        for tokens, length, arcs in zip(part.batch.tokens, part.batch.lengths, part.arcs):
            index = next(i for i, doc in enumerate(docs) if sum(map(len, docs[:i])) == tokens[0])
            single = model.predict([bare(docs[index])]).scores[0].arcs[0]
            torch.testing.assert_close(arcs[1 : length + 1, : length + 1], single[1:])


@pytest.mark.parametrize("projective", [True, False])
@pytest.mark.parametrize("multi_root", [True, False])
def test_predicts_the_best_trees_of_the_scores(projective, multi_root):
    nlp, docs = untrained(projective=projective, multi_root=multi_root)
    pipe = nlp.get_pipe("spigot_parser")
    decode = projective_tree if projective else nonprojective_tree
    for doc in docs:
        scores = pipe.model.predict([bare(doc)]).scores[0]
        best = decode(scores.arcs, multi_root=multi_root)[0].numpy()
        given = pipe.predict([bare(doc)])[0][:, 0]
        assert (np.where(best == 0, np.arange(len(doc)), best - 1) == given).all()


def test_predict_makes_no_python_call_per_token():
    nlp, _ = untrained()
    pipe = nlp.get_pipe("spigot_parser")

    def calls(words):
        # twice three: a parsed document would be parsed sentence by sentence
        first, docs = ([Doc(nlp.vocab, words=["dog", "cat"] * (words // 2)) for _ in "abc"] for _ in "ab")
        pipe.set_annotations(first, pipe.predict(first))
        count = 0

        def trace(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(trace)
        try:
            pipe.set_annotations(docs, pipe.predict(docs))
        finally:
            sys.setprofile(None)
        return count

    assert calls(10) == calls(60) > 0


def test_white_space_hangs_on_its_word_and_is_never_a_head():
    nlp, _ = untrained()
    for text in ["  the cat\n\nsaw  a dog ", "\n", " \n run", "a\n"]:
        doc = nlp(text)
        words = [t for t in doc if not t.is_space]
        assert all(not t.head.is_space for t in words)
        for t in doc:
            if t.is_space and words:
                before = [w for w in words if w.i < t.i]
                assert t.head == (before[-1] if before else words[0]) and t.dep_ == "dep"
    plain, spaced = nlp("the cat saw a dog"), nlp("the  cat saw\n a dog")
    kept = [t for t in spaced if not t.is_space]
    assert [t.text for t in kept] == [t.text for t in plain] and len(spaced) == 7


@pytest.mark.parametrize("multi_root", [True, False])
def test_one_root_or_several(multi_root):
    nlp, _ = untrained(multi_root=multi_root)
    scorer = nlp.get_pipe("spigot_parser").model.shims[0].module
    score = scorer.score

    def every_word_likes_the_root(words, drop):
        arcs, label_scores = score(words, drop)
        return arcs * 0 + 10 * (torch.arange(arcs.shape[2]) == 0), label_scores

    scorer.score = every_word_likes_the_root
    doc = nlp("a b c d")
    assert len(list(doc.sents)) == (4 if multi_root else 1)
    assert sum(t.dep_ == "ROOT" for t in doc) == len(list(doc.sents))


def test_empty_documents():
    nlp, examples = parser()
    empty = Example(nlp.make_doc(""), Doc(nlp.vocab))
    nlp.update([empty], sgd=SGD(0.1))
    nlp.update([empty, *examples[:2]], sgd=SGD(0.1))
    assert [len(doc) for doc in nlp.pipe(["", "go", ""])] == [0, 1, 0]
    assert nlp.get_pipe("spigot_parser").predict([]) == []


# ---- segments


def words_of(doc):
    return np.flatnonzero([not t.is_space for t in doc])


def test_lazy_segments_cut_long_documents_after_sentences():
    vocab = spacy.blank("xx").vocab
    doc = Doc(vocab, words=("a b c d . " * 6).split())
    cut = lazy_segments(max_length=10)
    parts = cut(doc, words_of(doc))
    assert np.concatenate(parts).tolist() == list(range(30)) and max(map(len, parts)) <= 10
    assert all(doc[int(part[-1])].text == "." for part in parts)
    assert len(cut(doc[:10].as_doc(), np.arange(10))) == 1
    plain = Doc(vocab, words=["w"] * 25)
    assert [len(p) for p in cut(plain, np.arange(25))] == [6, 6, 6, 7]
    with pytest.raises(ValueError, match="max_length"):
        lazy_segments(max_length=0)


def test_lazy_segments_respect_given_sentences():
    vocab = spacy.blank("xx").vocab
    starts = [i in (0, 7) for i in range(12)]
    doc = Doc(vocab, words=["w"] * 12, sent_starts=starts)
    assert [len(p) for p in lazy_segments(max_length=10)(doc, np.arange(12))] == [7, 5]


def test_sentences_need_boundaries():
    vocab = spacy.blank("xx").vocab
    with pytest.raises(ValueError, match=r"sentencizer.*annotating_components.*lazy_segments"):
        sentences()(Doc(vocab, words=["a", "b"]), np.arange(2))
    doc = Doc(vocab, words=["a", " ", "b", "c"], sent_starts=[True, False, True, False])
    assert [p.tolist() for p in sentences()(doc, np.array([0, 2, 3]))] == [[0], [2, 3]]


def test_sentences_stay_as_they_are():
    nlp = spacy.blank("xx")
    nlp.add_pipe("sentencizer")
    config = parser_config(multi_root=False)
    config["model"] = config["model"] | {"segmenter": {"@misc": "diffdecode.sentences.v1"}}
    nlp.add_pipe("spigot_parser", config=config)
    examples = [example(doc) for doc in parsed_docs(nlp.vocab)]
    nlp.initialize(lambda: examples)
    nlp.update(examples, sgd=SGD(0.01), annotates=["sentencizer"])
    doc = nlp("The cat saw a dog. It ran! Where to? No.")
    assert [len(s) for s in doc.sents] == [6, 3, 3, 2]


def test_long_document_is_parsed_in_parts():
    nlp, _ = untrained()
    long = Doc(nlp.vocab, words=("dogs bark . " * 2000).split())
    parts = segment_docs([long], lazy_segments(max_length=192))
    assert max(max(b.lengths) for b in parts.batches) <= 192
    assert max(b.tokens.shape[0] * (b.tokens.shape[1] + 1) ** 2 for b in parts.batches) <= 50_000
    nlp.get_pipe("spigot_parser")(long)
    assert long.has_annotation("DEP")


def test_segment_batches_hold_every_word_once():
    vocab = spacy.blank("xx").vocab
    docs = [Doc(vocab, words=["w"] * n) for n in (3, 0, 70, 1, 9, 0, 200)]
    docs.append(Doc(vocab, words=[" ", "a", "\n"]))
    made = segment_docs(docs, whole_docs(), arcs=1000)
    words = np.sort(np.concatenate([b.tokens[b.is_word] for b in made.batches]))
    assert words.tolist() == [*range(283), 284] and made.spaces.tolist() == [283, 285]
    assert made.hosts.tolist() == [284, 284]


# ---- gold trees


def test_words_without_a_gold_head_are_unknown():
    vocab = spacy.blank("xx").vocab
    doc = Doc(vocab, words=["a", "b", "c"], heads=[1, 1, 1], deps=["x", "ROOT", ""])
    heads, labels = aligned_tree(example(doc), projective=True)
    assert heads.tolist() == [1, 1, -1] and (labels[:2] > 0).all() and labels[2] == 0
    assert aligned_tree(example(bare(doc)), projective=True)[0].tolist() == [-1, -1, -1]


def test_gold_tree_on_other_tokens():
    vocab = spacy.blank("xx").vocab
    gold = Doc(
        vocab, words=["do", "n't", "go", "now"], spaces=[False, True, True, False],
        heads=[2, 2, 2, 2], deps=["aux", "neg", "ROOT", "advmod"],
    )  # fmt: skip
    eg = Example(Doc(vocab, words=["don't", "go", "now"], spaces=[True, True, False]), gold)
    heads, labels = aligned_tree(eg, projective=True)
    assert heads.tolist() == [-1, 1, 1] and labels[0] == 0
    assert vocab.strings[int(labels[2])] == "advmod"


@pytest.mark.parametrize("projective", [True, False])
def test_crossing_arcs_are_lifted_for_projective_trees_only(projective):
    vocab = spacy.blank("xx").vocab
    heads = [2, 3, 2, 2]  # 3 -> 1 crosses 2 -> 0
    doc = Doc(vocab, words=list("abcd"), heads=heads, deps=["w", "x", "ROOT", "z"])
    got, labels = aligned_tree(example(doc), projective)
    assert crosses(np.array(heads), np.ones(4, dtype=bool))
    assert crosses(got, np.ones(4, dtype=bool)) != projective
    assert (got.tolist() == heads) != projective
    assert [vocab.strings[int(label)] for label in labels] == ["w", "x", "ROOT", "z"]


def test_crosses_agrees_with_the_definition():
    rng = np.random.RandomState(0)
    for _ in range(300):
        heads = rng.randint(0, 5, size=5)
        arcs = [(i, -1 if heads[i] == i else int(heads[i])) for i in range(5)]
        spans = [tuple(sorted(arc)) for arc in arcs]
        expected = any(a < c < b < d for a, b in spans for c, d in spans)
        assert crosses(heads, np.ones(5, dtype=bool)) == expected


def test_gold_heads_within_segments():
    vocab = spacy.blank("xx").vocab
    doc = Doc(vocab, words=["a", "b", " ", "c", "d"])
    made = segment_docs([doc, doc], lambda doc, words: [words[:2], words[2:]])
    (batch,) = made.batches
    heads = np.array([1, 1, 0, 1, 3, 5, 9, 5, -1, 9])  # second doc: two roots, an outside and an unknown head
    gold = gold_heads(batch, heads, multi_root=True)
    by_first = {int(batch.tokens[r, 0]): gold[r].tolist() for r in range(4)}
    assert by_first == {0: [2, 0], 3: [-1, 1], 5: [0, -1], 8: [-1, 0]}
    several = gold_heads(batch, np.array([0, 1, 0, 3, 4, 5, 6, 5, 8, 9]), multi_root=False)
    assert (several == [0, -1]).all()


# ---- serialization, optimizer, dropout


def test_saved_parser_is_the_same(tmp_path):
    nlp, docs = untrained()
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    copied = spacy.blank("xx")
    copied.add_pipe("spigot_parser", config=parser_config())
    copied.from_bytes(nlp.to_bytes())
    for doc in docs:
        assert read(loaded(doc.text)) == read(copied(doc.text)) == read(nlp(doc.text))
    assert change(torch_weights(nlp), torch_weights(loaded)) == 0
    loaded.update([example(doc) for doc in docs], sgd=Adam(0.01))
    assert change(torch_weights(nlp), torch_weights(loaded)) > 0


def test_tok2vec_that_learns_its_width_late():
    """As a transformer's listener: the width is found at a document, and saved with the model."""

    def make():
        def forward(model, docs, is_train):
            return [np.ones((len(doc), 7), dtype="f") for doc in docs], lambda gradients: []

        return build_biaffine_parser(Model("late", forward, dims={"nO": None}), whole_docs(), hidden_width=4)

    model, docs = make(), parsed_docs(spacy.blank("xx").vocab)
    with pytest.raises(ValueError, match="no width yet"):
        model.initialize()
    model.initialize(X=docs)
    assert model.shims[0].module.dependent.in_features == 7
    loaded = make().from_bytes(model.to_bytes())
    expected = model.predict(docs).scores[0].arcs
    assert torch.equal(loaded.predict(docs).scores[0].arcs, expected)


def test_saved_bytes_hold_no_pickle():
    nlp, _ = untrained()
    saved = nlp.get_pipe("spigot_parser").model.shims[0].to_bytes()
    assert b"torch" not in saved and b"PK\x03\x04" not in saved


def test_averaged_weights_are_used_and_given_back():
    """thinc's own torch shim never applies them."""
    nlp, examples = parser()
    optimizer = Adam(0.05, use_averages=True)
    for _ in range(4):
        nlp.update(examples, sgd=optimizer)
    before = torch_weights(nlp)
    shim = nlp.get_pipe("spigot_parser").model.shims[0]
    with nlp.use_params(optimizer.averages):
        inside = torch_weights(nlp)
    assert change(before, torch_weights(nlp)) == 0
    for name, value in inside.items():
        assert np.allclose(value.numpy(), optimizer.averages[(shim.id, name)])
    assert change(before, inside) > 1e-3


def test_batch_without_gradient_leaves_the_parser_alone():
    """thinc's own shim would step on zeros, and Adam's momentum would move the weights."""
    nlp, examples = parser()
    optimizer = Adam(0.05, L2=0.1, L2_is_weight_decay=True)
    train_step(nlp, examples, optimizer)
    before = torch_weights(nlp)
    train_step(nlp, [example(bare(eg.reference)) for eg in examples], optimizer)
    assert change(before, torch_weights(nlp)) == 0


def test_training_keeps_no_tensors():
    """thinc's own shim makes each step's parameters views of those before, which then never go away."""
    nlp, examples = parser()
    optimizer = Adam(0.01)

    def tensors_after(steps):
        for _ in range(steps):
            train_step(nlp, examples, optimizer)
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    assert tensors_after(2) == tensors_after(3)


def test_dropout_reaches_the_torch_module():
    nlp, examples = parser()
    pipe = nlp.get_pipe("spigot_parser")
    docs = [eg.predicted for eg in examples]

    def scores(drop):
        from thinc.api import set_dropout_rate

        set_dropout_rate(pipe.model, drop)
        pipe.model.get_ref("tok2vec").walk()
        for node in pipe.model.get_ref("tok2vec").walk():
            if "dropout_rate" in node.attrs:
                node.attrs["dropout_rate"] = 0.0
        return pipe.model.begin_update(docs)[0].scores[0].arcs.detach()

    fix_random_seed(0)
    assert torch.equal(scores(0.0), scores(0.0)) and not torch.allclose(scores(0.5), scores(0.5))
    pipe.update(examples, drop=0.5)
    assert pipe.model.attrs["dropout_rate"] == 0.5
    predicted = pipe.model.predict(docs).scores[0].arcs
    assert torch.equal(predicted, pipe.model.predict(docs).scores[0].arcs)


def test_copy_of_the_model_has_its_own_weights_and_identity():
    nlp, _ = untrained()
    model = nlp.get_pipe("spigot_parser").model
    copied = model.copy()
    assert copied.shims[0].id != model.shims[0].id
    with torch.no_grad():
        copied.shims[0].module.arc.weight.zero_()
    assert module_norm(model) > 0 == module_norm(copied)


def module_norm(model):
    return float(model.shims[0].module.arc.weight.detach().norm())


def test_docbin_round_trip_of_the_parse():
    nlp, docs = untrained()
    parsed = list(nlp.pipe([doc.text for doc in docs]))
    again = DocBin(docs=parsed).get_docs(nlp.vocab)
    assert [read(doc) for doc in again] == [read(doc) for doc in parsed]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_forked_workers_do_not_hang():
    """torch's thread pool does not survive a fork: see spacy_components/__init__.py."""
    nlp, _ = parser()
    large = torch.randn(600, 600)

    def work():
        nlp("a small dog barks at the very old house of my aunt")
        (large @ large).sum()  # large enough to be shared out among threads

    torch.set_num_threads(2)
    try:
        (large @ large).sum()  # starts the pool
        worker = multiprocessing.get_context("fork").Process(target=work)
        worker.start()
        worker.join(HANGS_AFTER)
        hangs = worker.is_alive()
        worker.kill()
        worker.join()
    finally:
        torch.set_num_threads(1)
    assert not hangs and worker.exitcode == 0


def test_unfitting_parser_is_not_confused_by_a_listener():
    """Without listeners update makes its backward pass at once; with one it waits."""
    nlp, examples = parser()
    nlp.get_pipe("spigot_parser").update(examples)
    assert torch_gradients(nlp)
    nlp, examples = joint()
    nlp.get_pipe("spigot_parser").update(examples)
    assert not torch_gradients(nlp)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_parser_trains_on_a_gpu():
    pytest.importorskip("cupy", reason="spaCy on a GPU needs CuPy")
    spacy.require_gpu()
    try:
        nlp, examples = parser()
        for _ in range(40):
            nlp.update(examples, sgd=Adam(0.01))
        assert nlp.evaluate(examples)["dep_las"] == 1.0
    finally:
        spacy.require_cpu()


def test_sentences_of_the_toy_corpus_are_trees():
    for text, heads, deps in SENTENCES:
        assert len(text.split()) == len(heads) == len(deps.split())
