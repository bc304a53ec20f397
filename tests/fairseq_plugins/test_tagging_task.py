"""The task sequence_tagging without a command line: data, its errors, candidates, counts, the generator."""

import shutil
from argparse import Namespace

import pytest
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.data import Dictionary
from fairseq.dataclass.configs import GenerationConfig
from fairseq.logging import metrics
from fairseq.tasks import TASK_REGISTRY
from omegaconf import OmegaConf
from toy_corpus import run

from fairseq_plugins.models.fixed_attention_lstm import FixedAttentionLSTMConfig, FixedAttentionLSTMModel
from fairseq_plugins.progress import ScheduledCriterionTask
from fairseq_plugins.scoring.span_f1 import SpanCounts
from fairseq_plugins.tasks.tagging.metrics import TagCounter
from fairseq_plugins.tasks.tagging.task import SequenceTaggingConfig, SequenceTaggingTask, label_ids
from fairseq_plugins.tasks.tagging.transitions import bio_transitions
from fairseq_plugins.tasks.translation import DirectLossTranslationConfig, DirectLossTranslationTask

WORDS = ["the cat sat", "a dog", "the dog saw a cat today"]
LABELS = ["O B-X O", "O B-X", "O B-X O O B-Y I-Y"]


def binarised(folder, words=WORDS, labels=LABELS, valid=None):
    """A folder made by fairseq-preprocess; *valid* is a pair of lists of lines."""
    for split, (word_lines, label_lines) in {
        "train": (words, labels),
        "valid": valid or (words, labels),
    }.items():
        for suffix, lines in (("words", word_lines), ("labels", label_lines)):
            (folder / f"{split}.{suffix}").write_text("".join(f"{line}\n" for line in lines))
    prefixes = [f"--{split}pref={folder / split}" for split in ("train", "valid")]
    run("preprocess", "-s", "words", "-t", "labels", *prefixes, "--destdir", folder / "bin")
    return folder / "bin"


def task_for(folder, **options):
    options = {"dataset_impl": "mmap", "post_process": None, "best_checkpoint_metric": "loss", **options}
    return SequenceTaggingTask.setup_task(SequenceTaggingConfig(data=str(folder), **options))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return binarised(tmp_path_factory.mktemp("tagging"))


@pytest.fixture
def task(corpus):
    return task_for(corpus)


def tagger_for(task):
    torch.manual_seed(0)
    config = FixedAttentionLSTMConfig(encoder_hidden_size=8, decoder_hidden_size=8)
    model = FixedAttentionLSTMModel.build_model(config, task).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4.0)
    return model


def whole_split(task, split="valid"):
    task.load_dataset(split)
    dataset = task.dataset(split)
    return dataset.collater([dataset[i] for i in range(len(dataset))])


def text(dictionary, ids):
    return " ".join(dictionary[i] for i in ids.tolist() if i != dictionary.pad())


def test_is_registered_and_schedules_criterions():
    assert TASK_REGISTRY["sequence_tagging"] is SequenceTaggingTask
    assert issubclass(SequenceTaggingTask, ScheduledCriterionTask)


def test_batches_hold_words_and_labels_without_end_symbols(task):
    batch = whole_split(task)
    assert batch["ntokens"] == 11
    words, labels = task.source_dictionary, task.target_dictionary
    by_id = dict(zip(batch["id"].tolist(), zip(batch["net_input"]["src_tokens"], batch["target"])))
    for i, (source, target) in by_id.items():
        assert (text(words, source), text(labels, target)) == (WORDS[i], LABELS[i])
    assert batch["net_input"]["src_lengths"].tolist() == [6, 3, 2]
    previous = batch["net_input"]["prev_output_tokens"]
    assert previous[:, 0].tolist() == [labels.eos()] * 3
    assert torch.equal(previous[0, 1:], batch["target"][0, :-1])
    assert batch["target"][2].tolist()[2:] == [labels.pad()] * 4  # padded on the right


def test_sizes_count_words(task):
    task.load_dataset("train")
    assert [task.dataset("train").num_tokens(i) for i in range(3)] == [3, 2, 6]


def test_candidates_are_the_labels_and_nothing_else(task):
    assert {task.target_dictionary[i] for i in task.label_ids.tolist()} == {"O", "B-X", "B-Y", "I-Y"}


def test_symbols_that_fill_up_a_dictionary_are_no_candidates():
    labels = Dictionary()
    ids = [labels.add_symbol(symbol) for symbol in ("NP", "N/N")]
    labels.finalize(padding_factor=8)
    assert len(labels) == 8
    assert label_ids(labels).tolist() == ids


def test_no_labels_at_all_is_refused():
    with pytest.raises(ValueError, match="no label"):
        label_ids(Dictionary())


@pytest.mark.parametrize(
    ("words", "labels", "message"),
    [
        (
            ["the cat", "a dog"],
            ["O B-X", "O B-X O"],
            r"valid\.words-labels\.labels, line 2: 3 labels for 2 words",
        ),
        (["the cat", "a", "a"], ["O", "O", "O O"], r"labels, line 1: 1 labels for 2 words \(2 such lines\)"),
        (["the cat", ""], ["O B-X", ""], r"words, line 2: empty line"),
        (["the cat"], ["O B-X", "O"], r"words has 1 lines but .*labels has 2"),
        ([], [], "is the text file that it was made from empty"),
    ],
    ids=["one more label", "one less label", "empty line", "unequal numbers of lines", "empty file"],
)
def test_bad_files_are_named_with_their_line(tmp_path, words, labels, message):
    folder = binarised(tmp_path, valid=(words, labels))
    with pytest.raises(ValueError, match=message):
        task_for(folder).load_dataset("valid")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A corpus with train, train1, valid, valid1 and valid2, which hold 3, 2, 3, 2 and 2 sentences."""
    folder = tmp_path_factory.mktemp("shards")
    data = binarised(folder)
    for suffix, lines in (("words", WORDS), ("labels", LABELS)):
        (folder / f"more.{suffix}").write_text("".join(f"{line}\n" for line in lines[1:]))
    prefixes = [f"--trainpref={folder / 'more'}", f"--validpref={folder / 'more'},{folder / 'more'}"]
    more = folder / "more"
    run("preprocess", "-s", "words", "-t", "labels", *prefixes, "--destdir", more,
        "--srcdict", data / "dict.words.txt", "--tgtdict", data / "dict.labels.txt")  # fmt: skip
    for found, wanted in (("train", "train1"), ("valid", "valid1"), ("valid1", "valid2")):
        for path in more.glob(f"{found}.*"):
            (data / path.name.replace(found, wanted, 1)).write_bytes(path.read_bytes())
    return data


def sentences_of(task, split, combine=False):
    task.load_dataset(split, combine=combine)
    dataset = task.dataset(split)
    return [text(task.source_dictionary, dataset[i]["source"]) for i in range(len(dataset))]


def test_shards_are_read_where_fairseq_asks_for_them(shards):
    task = task_for(shards)
    assert sentences_of(task, "train") == WORDS
    assert sentences_of(task, "train", combine=True) == WORDS + WORDS[1:]  # as fairseq-train does
    assert sentences_of(task, "valid", combine=True) == WORDS + WORDS[1:] + WORDS[1:]
    assert sentences_of(task, "valid2") == WORDS[1:]
    assert sentences_of(task_for(shards, upsample_primary=2), "train", combine=True) == 2 * WORDS + WORDS[1:]
    assert task.dataset("valid2").src_sizes.tolist() == [len(line.split()) for line in WORDS[1:]]


def test_the_same_sentences_as_translation_reads(shards):
    """But for the end-of-sentence symbols."""
    for combine in (False, True):
        translation = DirectLossTranslationTask.setup_task(
            DirectLossTranslationConfig(
                data=str(shards), source_lang="words", target_lang="labels", dataset_impl="mmap"
            )
        )
        theirs = [line.removesuffix(" </s>") for line in sentences_of(translation, "train", combine)]
        assert theirs == sentences_of(task_for(shards), "train", combine)


def test_suffixes_the_other_way_round(corpus):
    task = task_for(corpus, source_lang="labels", target_lang="words")
    assert sentences_of(task, "valid") == LABELS


def test_bad_lines_of_a_shard_are_named(shards, tmp_path):
    data = tmp_path / "bin"
    shutil.copytree(shards, data)
    for path in data.glob("train.words-labels.labels.*"):
        shutil.copy(path, data / path.name.replace("train", "train1"))
    with pytest.raises(ValueError, match=r"train1\.words-labels\.words has 2 lines"):
        task_for(data).load_dataset("train", combine=True)
    with pytest.raises(ValueError, match="--upsample-primary 0 must be at least 1"):
        task_for(data, upsample_primary=0)


def test_missing_split_and_missing_folder(task, tmp_path):
    with pytest.raises(FileNotFoundError, match="fairseq-preprocess"):
        task.load_dataset("dev")
    with pytest.raises(ValueError, match="name their suffixes with -s and -t"):
        task_for(tmp_path)


def test_data_without_end_symbols_is_refused(tmp_path):
    folder = binarised(tmp_path)
    run("preprocess", "-s", "words", "-t", "labels", "--trainpref", tmp_path / "train", "--destdir", folder,
        "--srcdict", folder / "dict.words.txt", "--tgtdict", folder / "dict.labels.txt")  # fmt: skip
    task = task_for(folder)
    task.load_dataset("train")
    dataset = task.dataset("train")
    dataset.src.dataset = [ids[:-1] for ids in dataset.src.dataset]
    with pytest.raises(ValueError, match="line 1: no end-of-sentence symbol"):
        dataset[0]


def test_the_padding_symbol_as_a_word_is_refused(tmp_path):
    task = task_for(binarised(tmp_path, words=["a <pad> b", "a"], labels=["O O O", "O"]))
    task.load_dataset("train")
    with pytest.raises(
        ValueError, match=r"train\.words-labels\.words, line 1: holds fairseq's own symbol <pad>"
    ):
        task.dataset("train")[0]


def test_progress_reaches_criterions_that_ask_for_it(task):
    seen = []
    batch, model = whole_split(task, "train"), tagger_for(task)
    criterion = CrossEntropyCriterion(task, sentence_avg=False)
    optimizer = Namespace(backward=lambda loss: loss.backward())
    task.train_step(batch, model, criterion, optimizer, update_num=3)
    criterion.set_progress = lambda *progress: seen.append(progress)
    task.begin_epoch(5, model)
    task.train_step(batch, model, criterion, optimizer, update_num=7)
    assert seen == [(5, 7)]


def validation_logs(task, batches, model):
    criterion = CrossEntropyCriterion(task, sentence_avg=False)
    with torch.no_grad():
        return [task.valid_step(batch, model, criterion)[2] for batch in batches], criterion


def reduced(task, criterion, logs):
    with metrics.aggregate(new_root=True) as meters:
        for outputs in logs:
            task.reduce_metrics(outputs, criterion)
    return meters.get_smoothed_values()


def test_validation_counts_are_summed_before_they_are_divided(task):
    """All sentences in one batch, or one by one, or on two workers: the same accuracy and F1."""
    model = tagger_for(task)
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    together, criterion = validation_logs(task, [whole_split(task)], model)
    alone, _ = validation_logs(task, [dataset.collater([dataset[i]]) for i in range(3)], model)
    summed = {key: torch.tensor(sum(float(output[key]) for output in alone)) for key in alone[0]}
    values = [
        reduced(task, criterion, [together]),
        reduced(task, criterion, [[output] for output in alone]),
        reduced(task, criterion, [alone[:2], alone[2:]]),
        # trainer.py adds up the outputs of the workers, as tensors, where they can be summed.
        reduced(task, criterion, [[summed]]),
    ]
    assert all(output.keys() == together[0].keys() for output in alone)
    for name in ("accuracy", "f1", "macro_f1"):
        assert all(isinstance(value[name], float) for value in values)
        assert values[0][name] == pytest.approx(values[1][name]) == pytest.approx(values[2][name])
        assert values[0][name] == pytest.approx(values[3][name])
    assert not [name for name in values[0] if name.startswith("_")]


@pytest.mark.parametrize("beam", [1, 3])
def test_validation_scores_what_the_generator_predicts(task, beam):
    model, batch = tagger_for(task), whole_split(task)
    task.cfg.eval_beam = beam
    logs, criterion = validation_logs(task, [batch], model)
    values = reduced(task, criterion, [logs])
    generator = task.build_generator([model], GenerationConfig(beam=beam))
    counts, right = SpanCounts(), 0
    for gold, hypotheses in zip(batch["target"], generator.generate([model], batch)):
        gold, predicted = (
            text(task.target_dictionary, ids).split() for ids in (gold, hypotheses[0]["tokens"])
        )
        counts.add(gold, predicted)
        right += sum(a == b for a, b in zip(gold, predicted))
    assert values["accuracy"] == pytest.approx(100 * right / 11)
    assert values["f1"] == pytest.approx(100 * counts.micro_f1())
    assert values["macro_f1"] == pytest.approx(100 * counts.macro_f1())
    assert 0 < values["accuracy"] < 100


def test_counts_by_hand():
    labels = Dictionary()
    o, x, y = (labels.add_symbol(symbol) for symbol in ("O", "B-X", "B-Y"))
    counter = TagCounter(labels, label_ids(labels))
    pad, unknown = labels.pad(), labels.unk()
    gold = torch.tensor([[x, o, y], [x, unknown, pad]])
    predicted = torch.tensor([[x, o, o], [y, x, x]])
    assert counter.count(gold, predicted) == {
        "_words": 5,
        "_right_words": 2,
        "_gold_spans:X": 2,
        "_gold_spans:Y": 1,
        "_predicted_spans:X": 2,
        "_predicted_spans:Y": 1,
        "_correct_spans:X": 1,
        "_correct_spans:Y": 0,
    }


def test_labels_that_are_not_bio_have_accuracy_only():
    labels = Dictionary()
    ids = [labels.add_symbol(symbol) for symbol in ("NP", "N/N")]
    counter = TagCounter(labels, label_ids(labels))
    assert counter.count(torch.tensor([ids]), torch.tensor([ids[::-1]])) == {"_words": 2, "_right_words": 0}


def test_hypotheses_have_one_label_a_word_best_first(task):
    model, batch = tagger_for(task), whole_split(task)
    del batch["target"]
    found = task.build_generator([model], GenerationConfig(beam=3)).generate([model], batch)
    lengths = batch["net_input"]["src_lengths"].tolist()
    for length, hypotheses in zip(lengths, found):
        assert len(hypotheses) == 3
        scores = [hypothesis["score"] for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(hypothesis["tokens"].tolist()) for hypothesis in hypotheses}) == 3
        for hypothesis in hypotheses:
            assert len(hypothesis["tokens"]) == len(hypothesis["positional_scores"]) == length
            assert set(hypothesis["tokens"].tolist()) <= set(task.label_ids.tolist())
            assert hypothesis["score"] == pytest.approx(float(hypothesis["positional_scores"].sum()))
            assert hypothesis["alignment"] == [(i, i) for i in range(length)]


def test_scores_are_the_models(task):
    model, batch = tagger_for(task), whole_split(task)
    found = task.build_generator([model], GenerationConfig(beam=4)).generate([model], batch)
    reference = task.build_generator([model], Namespace(score_reference=True))
    for row, hypotheses in enumerate(found):
        length = int(batch["net_input"]["src_lengths"][row])
        for hypothesis in hypotheses:
            previous = torch.cat([torch.tensor([task.target_dictionary.eos()]), hypothesis["tokens"][:-1]])[
                None
            ]
            sources = batch["net_input"]["src_tokens"][row : row + 1, :length]
            sample = {
                "net_input": {
                    "src_tokens": sources,
                    "src_lengths": torch.tensor([length]),
                    "prev_output_tokens": previous,
                },
                "target": hypothesis["tokens"][None],
            }
            scored = reference.generate([model], sample)[0][0]["positional_scores"]
            torch.testing.assert_close(hypothesis["positional_scores"], scored)


def test_a_beam_wider_than_the_candidates_gives_what_there_is(task):
    model = tagger_for(task)
    words = task.source_dictionary.encode_line("cat", add_if_not_exist=False).long()
    dataset = task.build_dataset_for_inference([words], [len(words)])
    hypotheses = task.build_generator([model], GenerationConfig(beam=9)).generate(
        [model], dataset.collater([dataset[0]])
    )
    assert len(hypotheses[0]) == len(task.label_ids)


def test_bio_by_definition():
    labels = ["O", "B-X", "I-X", "I-Y"]
    found = bio_transitions(labels)
    for row, before in enumerate([*labels, "the beginning"]):
        expected = [label for label in labels if label in ("O", "B-X") or label[1:] == before[1:]]
        assert [label for label, allowed in zip(labels, found[row]) if allowed] == expected
    for other in (["NP", "N/N"], ["I-X", "I-Y"], ["O"]):
        with pytest.raises(ValueError, match=r"--valid-transitions needs the labels O, B-.*: remove it"):
            bio_transitions(other)


@pytest.mark.parametrize("search", ["beam", "soft-beam"])
def test_valid_transitions_hold_in_validation_and_generation(corpus, search):
    task = task_for(corpus, valid_transitions=True, search=search)
    free = task_for(corpus, search=search)
    model, batch = tagger_for(task), whole_split(task)
    # A model that would begin every sentence with I-Y.
    model.decoder.output_projection.bias.data[task.target_dictionary.index("I-Y")] += 20.0
    for beam in (1, 3):
        for one, valid in ((task, True), (free, False)):
            one.cfg.eval_beam = beam
            generator = one.build_generator([model], GenerationConfig(beam=beam))
            for hypotheses in generator.generate([model], batch):
                assert hypotheses
                for hypothesis in hypotheses[: None if valid else 1]:
                    assert bool(task.search_space.forbidden(hypothesis["tokens"]).any()) is not valid
        logs, _ = validation_logs(task, [batch], model)
        right = sum(
            int((gold[: len(found[0]["tokens"])] == found[0]["tokens"]).sum())
            for gold, found in zip(
                batch["target"],
                task.build_generator([model], GenerationConfig(beam=beam)).generate([model], batch),
            )
        )
        assert logs[0]["_right_words"] == right


def test_references_that_are_not_valid_are_named(tmp_path):
    train, valid = ["O B-X O", "O B-X", "O B-X O I-Y B-Y I-Y"], ["O I-Y O"]
    data = binarised(tmp_path, labels=train, valid=(["a b c"], valid))
    task = task_for(data, valid_transitions=True)
    for split, place in (("train", r"line 3: I-Y \(word 4\)"), ("valid", r"line 1: I-Y \(word 2\)")):
        with pytest.raises(
            ValueError, match=rf"{split}.*labels, {place} follows O, which --valid-transitions"
        ):
            task.load_dataset(split)
        task_for(data).load_dataset(split)


def test_empty_lines_typed_in_get_no_label(task):
    model = tagger_for(task)
    lines = [
        task.source_dictionary.encode_line(line, add_if_not_exist=False).long()
        for line in ("the cat", "", "new")
    ]
    dataset = task.build_dataset_for_inference(lines, [len(line) for line in lines])
    generator = task.build_generator([model], GenerationConfig(beam=2))
    batch = dataset.collater([dataset[i] for i in range(3)])
    found = dict(zip(batch["id"].tolist(), generator.generate([model], batch)))
    assert [len(found[i][0]["tokens"]) for i in range(3)] == [2, 0, 1]
    only_empty = dataset.collater([dataset[1]])
    assert [len(h["tokens"]) for h in generator.generate([model], only_empty)[0]] == [0]


def changed(value):
    """A value of an option of generation that is not its default."""
    if isinstance(value, bool):
        return not value
    return "ordered" if value is None else value + 1


@pytest.mark.parametrize(
    ("search", "used"),
    [
        ("tagging", {"beam", "nbest"}),
        (
            "soft beam in translation",
            {"beam", "nbest", "max_len_a", "max_len_b", "lenpen", "unnormalized", "sacrebleu"},
        ),
    ],
)
def test_options_of_generation_are_used_or_refused(task, search, used):
    """Every one that fairseq has, by name."""
    if search != "tagging":
        task = DirectLossTranslationTask(
            DirectLossTranslationConfig(search="soft-beam"), task.source_dictionary, task.target_dictionary
        )
    refused = set()
    for name, value in vars(GenerationConfig()).items():
        try:
            task.build_generator([], Namespace(**{"beam": 5, name: changed(value)}))
        except ValueError as error:
            refused.add(name)
            assert str(error).startswith(f"--{name.replace('_', '-')} has no meaning for ")
    assert vars(GenerationConfig()).keys() - refused == {
        *used,
        "score_reference",
        "no_seed_provided",
    }
    for further in ("lm_model", "prefix_allowed_tokens_fn", "seq_gen_cls"):
        given = {"extra_gen_cls_kwargs": {"lm_model": 1}} if further == "lm_model" else {further: print}
        with pytest.raises(ValueError, match=" has no meaning for "):
            task.build_generator([], GenerationConfig(), **given)


def test_gluing_labels_together_is_refused(corpus):
    with pytest.raises(ValueError, match=r"--post-process sentencepiece .*: remove it"):
        task_for(corpus, post_process="sentencepiece").build_generator([], GenerationConfig())


@pytest.mark.parametrize("metric", ["f1", "macro_f1"])
def test_a_metric_that_the_labels_do_not_have_is_refused(tmp_path, metric):
    folder = binarised(tmp_path, labels=["S-PER O I-PER", "O O", "O O O O O O"])
    with pytest.raises(ValueError, match=f"metric {metric} needs the labels O, B-.* S-PER.*: use accuracy"):
        task_for(folder, best_checkpoint_metric=metric)
    task_for(folder, best_checkpoint_metric="accuracy")


def test_a_joined_dictionary_is_refused(tmp_path):
    binarised(tmp_path)
    run("preprocess", "-s", "words", "-t", "labels", "--trainpref", tmp_path / "train", "--joined-dictionary",
        "--destdir", tmp_path / "joined")  # fmt: skip
    with pytest.raises(ValueError, match=r"dict\.labels\.txt holds the words, too: .* without --joined-dict"):
        task_for(tmp_path / "joined")


def reordered(corpus, folder, suffix):
    """The corpus with one dictionary turned round."""
    data = folder / f"other-{suffix}"
    shutil.copytree(corpus, data)
    lines = (data / f"dict.{suffix}.txt").read_text().splitlines()
    (data / f"dict.{suffix}.txt").write_text("".join(f"{line}\n" for line in reversed(lines)))
    return data


def small_model(task):
    config = {"_name": "fixed_attention_lstm", "encoder_hidden_size": 8, "decoder_hidden_size": 8}
    return task.build_model(OmegaConf.create(config))


def test_a_checkpoint_knows_its_dictionaries(corpus, tmp_path):
    state = small_model(task_for(corpus)).state_dict()
    small_model(task_for(corpus)).half().load_state_dict(state)
    for suffix in ("labels", "words"):
        other = small_model(task_for(reordered(corpus, tmp_path, suffix)))
        with pytest.raises(
            ValueError, match=rf"^dict\.{suffix}\.txt: not what the checkpoint was trained with"
        ):
            other.load_state_dict(state)
    old = {name: value for name, value in state.items() if "dictionary_versions" not in name}
    assert len(old) == len(state) - 1
    small_model(task_for(corpus)).load_state_dict(old)


def test_ensembles_prefixes_and_bad_beams_are_refused(task):
    model, batch = tagger_for(task), whole_split(task)
    generator = task.build_generator([model], GenerationConfig(beam=2))
    with pytest.raises(ValueError, match="not with an ensemble of 2"):
        generator.generate([model, model], batch)
    with pytest.raises(ValueError, match="without prefixes"):
        generator.generate([model], batch, prefix_tokens=batch["target"][:, :1])
    with pytest.raises(ValueError, match="--eval-beam 0 must be at least 1"):
        task_for(task.cfg.data, eval_beam=0)
    with pytest.raises(ValueError, match="--beam 0"):
        task.build_generator([model], GenerationConfig(beam=0))
