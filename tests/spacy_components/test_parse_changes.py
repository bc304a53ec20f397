"""Table 3 of the SPIGOT paper: SAME and DIFF, and the cases a, b, c of section 5, by hand."""

import pytest
import spacy
from spacy.tokens import Doc

from spacy_components.sdp_graph import set_graph
from spacy_components.training.parse_changes import compare_parses

NLP = spacy.blank("en")


def tree(*heads, arcs=None, cats=None):
    doc = Doc(NLP.vocab, words=list("abcd")[: len(heads)], heads=list(heads), deps=["dep"] * len(heads))
    if arcs is not None:
        set_graph(doc, arcs)
    doc.cats = cats or {}
    return doc


def test_table_by_hand():
    gold = tree(1, 1, 1, 2, arcs=[(1, 0, "X"), (2, 3, "Y")])
    same = tree(1, 1, 1, 1, arcs=[(1, 0, "X")])
    old, new = tree(1, 1, 1, 2, arcs=[]), tree(2, 1, 1, 1, arcs=[(1, 0, "X"), (2, 3, "Y")])
    changes = compare_parses([same, old], [same.copy(), new], [gold, gold])
    rows = {(row["split"], row["system"]): row for row in changes.rows()}
    assert rows["SAME", "before"] == rows["SAME", "after"] | {"system": "before"}
    assert rows["SAME", "after"]["uas"] == 0.75 and rows["SAME", "after"]["sentences"] == 1
    assert rows["SAME", "after"]["lf"] == pytest.approx(2 / 3)
    assert (rows["DIFF", "before"]["uas"], rows["DIFF", "after"]["uas"]) == (1.0, 0.5)
    assert (rows["DIFF", "before"]["lf"], rows["DIFF", "after"]["lf"]) == (0.0, 1.0)
    assert rows["ALL", "after"]["uas"] == 5 / 8 and rows["ALL", "after"]["sentences"] == 2
    assert changes.diff[0].changed == [0, 3] and "acc" not in rows["ALL", "after"]


@pytest.mark.parametrize(
    ("arcs", "cases"),
    [
        ([(2, 0, "X")], {"a"}),  # the new head c is a head of a
        ([(0, 2, "X")], {"b"}),  # the new head c is a dependent of a
        ([(0, 1, "X")], {"c"}),  # the old head b is a dependent of a
        ([(1, 0, "X")], set()),  # the old head b is a head of a: none of the three
        ([(2, 0, "X"), (0, 1, "X")], {"a", "c"}),
    ],
)
def test_cases_of_section_5(arcs, cases):
    old, new, gold = tree(1, 1, 1), tree(2, 1, 1), tree(1, 1, 1, arcs=arcs)
    changes = compare_parses([old], [new], [gold])
    assert changes.diff[0].cases(0) == cases
    shares = changes.case_shares()
    assert {case for case in "abc" if shares[case]} == cases
    assert shares["any"] == bool(cases) and shares["changed"] == 1


def test_shares_count_sentences_with_a_graph_only():
    old, new = tree(1, 1, 1), tree(2, 1, 1)
    assert compare_parses([old], [new], [tree(1, 1, 1)]).case_shares() is None
    gold = tree(1, 1, 1, arcs=[(2, 0, "X")])
    shares = compare_parses([old, old, old], [new, new, old], [gold, tree(1, 1, 1), gold]).case_shares()
    assert shares["changed"] == 1 and shares["a"] == 1.0


def test_scores_of_the_end_task_may_be_categories():
    right, wrong = {"A": 1.0, "B": 0.0}, {"A": 0.0, "B": 1.0}
    unparsed = Doc(NLP.vocab, words=["a", "b", "c"])
    unparsed.cats = right
    changes = compare_parses([tree(1, 1, 1, cats=wrong)], [tree(2, 1, 1, cats=right)], [unparsed])
    rows = [row for row in changes.rows() if row["split"] == "DIFF"]
    assert [row["acc"] for row in rows] == [0.0, 1.0] and "uas" not in rows[0]


def test_what_does_not_fit_together_is_named():
    with pytest.raises(ValueError, match="two different ways"):
        compare_parses([tree(0, 0)], [tree(0, 0, 0)], [tree(0, 0)])
    with pytest.raises(ValueError, match="no parse from the system 'after'"):
        compare_parses([tree(0, 0)], [Doc(NLP.vocab, words=["a", "b"])], [tree(0, 0)])
    with pytest.raises(ValueError, match="shorter"):
        compare_parses([tree(0, 0)], [], [])


def test_what_the_pipelines_do_not_predict_is_left_out_of_the_table():
    gold = tree(1, 1, 1, arcs=[(1, 0, "X")], cats={"A": 1.0, "B": 0.0})
    row = next(compare_parses([tree(1, 1, 1)], [tree(1, 1, 1)], [gold]).rows())
    assert row["uas"] == 1.0 and not {"lf", "acc"} & set(row)
    both = tree(1, 1, 1, arcs=[(1, 0, "X")], cats={"A": 0.2, "B": 0.1})
    row = next(compare_parses([both], [both.copy()], [gold]).rows())
    assert row["lf"] == row["acc"] == 1.0


def test_the_graphs_of_a_key_are_compared():
    old, new, gold = tree(1, 1, 1, arcs=[]), tree(2, 1, 1, arcs=[]), tree(1, 1, 1, arcs=[])
    for doc in (old, new, gold):
        set_graph(doc, [(2, 0, "X")], key="psd")
    changes = compare_parses([old], [new], [gold], "psd")
    assert changes.case_shares()["a"] == 1.0 and next(changes.rows())["split"] == "SAME"
    assert [row["lf"] for row in changes.rows() if row["split"] == "DIFF"] == [1.0, 1.0]
    assert compare_parses([old], [new], [gold]).case_shares()["a"] == 0.0
    assert compare_parses([old], [new], [gold], "ccd").case_shares() is None
