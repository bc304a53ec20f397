"""The guard rail, in spaCy's own training loop: a trained parser, and a classifier that bends its trees."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import spacy
import srsly
from spacy import util
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from thinc.api import Adam, to_numpy
from toy_pipelines import example, joint, make_pipeline, only, parsed_docs, parser_config, train_step

import spacy_components
from spacy_components.finetuning.drift import Drift
from spacy_components.finetuning.guard import create_guarded_logger
from spacy_components.finetuning.snapshot import Snapshot
from spacy_components.ml.thinc_glue.parameters import parameters

CONFIG = Path(spacy_components.__file__).parent / "configs" / "finetune_parser.cfg"
TOK2VEC = "components.textcat.model.tok2vec.tok2vec"
HARSH = {
    "corpora.train.fractions.parses": 0.0,
    "initialize.before_init.drift": None,
    "initialize.before_init.surrogate": "spigot",
    "initialize.before_init.grad_factor": 100.0,
    "training.optimizer.learn_rate": 0.02,
}
"""Nothing that keeps the parser a parser, and the gradient that is known to ruin parsers."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A parser that knows its treebank by heart, the treebank, and classified texts."""
    folder = tmp_path_factory.mktemp("trained")
    nlp, examples = make_pipeline(("spigot_parser", parser_config()))
    optimizer = Adam(0.01)
    for _ in range(60):
        nlp.update(examples, sgd=optimizer)
    assert nlp.evaluate(examples)["dep_las"] == 1.0
    nlp.to_disk(folder / "parser")
    found = {"parser": str(folder / "parser")}
    for name, annotation in (("parses", "parse"), ("texts", "cats")):
        path = str(folder / f"{name}.spacy")
        DocBin(docs=[only(doc, annotation) for doc in parsed_docs(nlp.vocab)]).to_disk(path)
        found |= {name: path, f"dev_{name}": path}
    return {f"paths.{name}": path for name, path in found.items()}


def finetune(paths, output=None, *, steps=12, **overrides):
    """Trains as ``spacy train`` does; returns the pipeline and what was printed."""
    settings = {
        **paths,
        "nlp.lang": "xx",
        "training.max_steps": steps,
        "training.eval_frequency": 2,
        "training.batcher.size": 60,
        "training.dropout": 0.0,
        f"{TOK2VEC}.width": 16,
        f"{TOK2VEC}.depth": 1,
        f"{TOK2VEC}.embed_size": 100,
        **overrides,
    }
    config = util.load_config(CONFIG, overrides=settings, interpolate=False)
    said = io.StringIO()
    nlp, _ = train(init_nlp(config), output, stdout=said, stderr=io.StringIO())
    return nlp, said.getvalue()


def prose(said):
    """Without line breaks: wasabi wraps at the width of the terminal."""
    return " ".join(said.split())


def rows(said):
    """Step, UAS, GUARD and Score of each evaluation in the table that was printed."""
    lines = [line.split() for line in said.splitlines() if re.match(r"\s+\d+\s+\d+\s", line)]
    header = re.split(r"\s{2,}", next(line for line in said.splitlines() if "DEP_UAS" in line).strip())
    columns = [header.index(name) for name in ("DEP_UAS", "GUARD", "SCORE")]
    return [(int(line[1]), *(float(line[column]) for column in columns)) for line in lines]


def uas(nlp, paths):
    docs = list(DocBin().from_disk(paths["paths.parses"]).get_docs(nlp.vocab))
    return nlp.evaluate([example(doc) for doc in docs])["dep_uas"]


def test_parsers_scores_stand_beside_the_tasks(paths):
    nlp, said = finetune(paths, steps=4)
    assert len(rows(said)) == 3 and all(value[1] == 100 for value in rows(said))
    assert "GUARD" in prose(said) and "CATS_SCORE" in said and "floor" not in said
    assert nlp.get_pipe("spigot_parser").settings.drift == Drift("kl", 0.1)


def test_report_never_keeps_a_pipeline_below_the_floor_as_the_best(paths, tmp_path):
    """The classifier gets better while the trees get worse: the score alone would choose such a pipeline."""
    finetune(paths, tmp_path, steps=6, **HARSH)
    assert uas(spacy.load(tmp_path / "model-best"), paths) < 0.9
    floor = {"training.logger.floor": 0.9, "training.logger.action": "report"}
    _, said = finetune(paths, tmp_path, steps=6, **HARSH, **floor)
    found = rows(said)
    assert found[0][1] == 100 and found[-1][1] < 90
    for _, value, guard, score in found:
        assert (guard == 0) == (value >= 90) and (score > 0) == (value >= 90)
    assert uas(spacy.load(tmp_path / "model-best"), paths) >= 0.9
    assert uas(spacy.load(tmp_path / "model-last"), paths) < 0.9
    below = sum(value < 90 for _, value, *_ in found)
    assert prose(said).count("is below the floor of 90.00") == below
    assert f"{below} of {len(found)} evaluations below the floor" in prose(said)


def test_stop_ends_the_training_well(paths, tmp_path):
    floor = {"training.logger.floor": 0.9, "training.logger.action": "stop"}
    _, said = finetune(paths, tmp_path, **HARSH, **floor)
    found = rows(said)
    assert len(found) < 7 and [value >= 90 for _, value, *_ in found] == [True] * (len(found) - 1) + [False]
    assert f"training stops; the last one above was at step {found[-2][0]}" in prose(said)
    assert "Saved pipeline to output directory" in prose(said)
    assert uas(spacy.load(tmp_path / "model-best"), paths) >= 0.9


def test_rollback_goes_back_and_on(paths, tmp_path):
    floor = {"training.logger.floor": 0.9, "training.logger.action": "rollback"}
    _, said = finetune(paths, tmp_path, steps=24, **HARSH, **floor)
    found = rows(said)
    values = [value for _, value, *_ in found]
    assert len(found) == 13  # it went on to the end
    first = next(i for i, value in enumerate(values) if value < 90)
    assert f"'spigot_parser' is what it was at step {found[first - 1][0]}" in prose(said)
    assert "its learning rate is 0.5 of the others' now" in prose(said)
    assert any(value >= 90 for value in values[first + 1 :])
    assert uas(spacy.load(tmp_path / "model-best"), paths) >= 0.9


def test_nothing_above_the_floor(paths, tmp_path):
    """Then there is no best pipeline, and the parser goes back to what it was at the start."""
    floor = {"training.logger.floor": 1.1, "training.logger.action": "rollback"}
    nlp, said = finetune(paths, tmp_path, steps=4, **HARSH, **floor)
    assert not (tmp_path / "model-best").exists() and (tmp_path / "model-last").exists()
    assert "so there is no model-best" in prose(said) and "what it was at the start" in prose(said)
    original = spacy.load(paths["paths.parser"]).get_pipe("spigot_parser")
    mine = nlp.get_pipe("spigot_parser")
    pairs = zip(parameters(original.model).values(), parameters(mine.model).values(), strict=True)
    assert all(np.array_equal(to_numpy(a), to_numpy(b)) for a, b in pairs)


def test_stop_with_the_first_evaluation_below(paths, tmp_path):
    floor = {"training.logger.floor": 1.1, "training.logger.action": "stop"}
    _, said = finetune(paths, tmp_path, **floor)
    assert len(rows(said)) == 1 and not (tmp_path / "model-best").exists()
    assert "the last one above was at the start" in prose(said)


@pytest.mark.parametrize("use_averages", [True, False])
def test_snapshot_brings_back_parameters_and_the_optimizers_state(use_averages):
    """After it, training goes the very way that it went before."""
    nlp, examples = joint()
    parser = nlp.get_pipe("spigot_parser")
    optimizer = Adam(0.01, use_averages=use_averages)

    def step():
        train_step(nlp, examples, optimizer, exclude=["textcat"])
        parser.close_batch()

    def state():
        found = {("value", *key): np.array(value) for key, value in parameters(parser.model).items()}
        for name in ("mom1", "mom2", "nr_update", "averages"):
            memory = getattr(optimizer, name) or {}
            found |= {(name, *key): np.array(value) for key, value in memory.items()}
        return found

    step()
    snapshot, before = Snapshot([parser.model], optimizer), state()
    step()
    once = state()
    step()
    nlp.update(examples, sgd=False)  # leaves gradients that wait for a step
    snapshot.restore(optimizer)
    after = state()
    assert before.keys() == after.keys() and all(np.array_equal(before[k], after[k]) for k in before)
    step()
    again = state()
    assert once.keys() == again.keys() and all(np.array_equal(once[k], again[k]) for k in once)
    fresh = Snapshot([parser.model], None)
    fresh.restore(optimizer)
    assert not optimizer.mom1.keys() & parameters(parser.model).keys()


@pytest.mark.parametrize("backoff", [1.0, 0.25])
def test_rollback_takes_a_shared_encoder_along(backoff):
    """Otherwise the parser's scores would not be what they were. The classifier's own part goes on."""
    nlp, examples = joint(shared=True)
    nlp.config["training"]["score_weights"] = {"guard": 9.0}
    setup = create_guarded_logger(floor=0.5, action="rollback", backoff=backoff, logger=quiet)
    log_step, finalize = setup(nlp, io.StringIO(), io.StringIO())
    optimizer, names = Adam(0.01), ("tok2vec", "spigot_parser", "textcat")

    def state():
        models = [nlp.get_pipe(name).model for name in names]
        return [{key: np.array(value) for key, value in parameters(model).items()} for model in models]

    def evaluated(step, value):
        train_step(nlp, examples, optimizer)
        now = state()
        log_step(None)
        scores = {"dep_uas": value}
        log_step({"step": step, "score": value, "other_scores": scores, "checkpoints": [(value, step)]})
        return now

    good = evaluated(1, 0.6)
    moments = {key: np.array(value) for key, value in optimizer.mom1.items()}
    bad = evaluated(2, 0.4)
    for now, before, after, mine in zip(state(), good, bad, (True, True, False), strict=True):
        assert any(not np.array_equal(before[key], after[key]) for key in before)
        assert all(np.array_equal(now[key], (before if mine else after)[key]) for key in now)
    assert all(np.array_equal(optimizer.mom1[key], moments[key]) for key in (*good[0], *good[1]))
    assert any(not np.array_equal(optimizer.mom1[key], moments[key]) for key in good[2])
    assert nlp.get_pipe("spigot_parser").step_size == backoff
    finalize()


def quiet(nlp, stdout, stderr):
    """A logger that says nothing."""
    return (lambda info: None), (lambda: None)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"training.score_weights.guard": 0.1}, "Add guard = 1.2 to"),
        ({"training.score_weights.dep_uas": None}, "add dep_uas = 0.0 to see it"),
        ({"training.patience": 0, "training.logger.action": "stop"}, "needs .training. patience"),
        ({"corpora.dev.fractions.parses": 0.0}, "there is no dep_uas to guard"),
        (
            {"training.logger.component": "textcat", "training.logger.metric": "cats_score"},
            "not on .*TextCat",
        ),
    ],
)
def test_settings_that_cannot_guard_are_refused(paths, overrides, message):
    with pytest.raises(ValueError, match=message):
        finetune(paths, steps=2, **{"training.logger.floor": 0.9, **overrides})


def test_any_components_score_can_be_guarded(paths):
    """Without rollback, which needs to know the optimizer."""
    overrides = {
        "training.logger.component": "textcat",
        "training.logger.metric": "cats_score",
        "training.logger.action": "report",
        "training.logger.floor": 1.1,
    }
    _, said = finetune(paths, steps=2, **overrides)
    assert "cats_score of 'textcat'" in prose(said) and "2 of 2 evaluations below the floor" in prose(said)


def test_logger_inside_and_the_default_one(paths, tmp_path):
    log = tmp_path / "log.jsonl"
    finetune(paths, steps=2, **{"training.logger.floor": 0.5, "training.logger.logger.output_file": str(log)})
    assert {"dep_uas", "dep_las", "cats_score", "guard"} <= set(next(srsly.read_jsonl(log))["scores"])
    nlp, _ = joint()
    nlp.config["training"]["score_weights"] = {"dep_uas": 1.0}
    said = io.StringIO()
    create_guarded_logger()(nlp, said, said)
    assert "DEP_UAS" in said.getvalue()
