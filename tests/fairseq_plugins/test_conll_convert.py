"""The converter of column files: what it writes, and one clear error for each kind of bad line."""

import gzip
import sys

import pytest
from damaged_files import damaged
from exploring import cases
from fairseq.tokenizer import tokenize_line
from hypothesis import given, settings

from diffdecode.files.text import FormatError
from fairseq_plugins.convert_conll import convert, main, read_sentences

TWO_COLUMNS = "Anna\tB-PER\nschläft\tO\n\nin\tO\nRom\tB-LOC\n"


def written(tmp_path, text, name="data.tsv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_writes_one_sentence_a_line(tmp_path):
    path = written(tmp_path, TWO_COLUMNS)
    assert convert(path, tmp_path / "new" / "train") == (2, 4)
    assert (tmp_path / "new" / "train.words").read_text(encoding="utf-8") == "Anna schläft\nin Rom\n"
    assert (tmp_path / "new" / "train.labels").read_text(encoding="utf-8") == "B-PER O\nO B-LOC\n"


@pytest.mark.parametrize(
    "text",
    [
        TWO_COLUMNS,
        TWO_COLUMNS + "\n\n\n",
        "\n" + TWO_COLUMNS.replace("\n\n", "\n \n\n"),
        TWO_COLUMNS.replace("\n", "\r\n"),
        "\ufeff" + TWO_COLUMNS,
        "-DOCSTART-\tO\n\n" + TWO_COLUMNS,
        TWO_COLUMNS.replace("\t", " "),
    ],
    ids=["plain", "blank end", "blank lines", "windows", "byte order mark", "docstart", "spaces"],
)
def test_spellings_of_the_same_sentences(tmp_path, text):
    expected = [(["Anna", "schläft"], ["B-PER", "O"]), (["in", "Rom"], ["O", "B-LOC"])]
    assert list(read_sentences(written(tmp_path, text))) == expected


def test_gzip(tmp_path):
    path = written(tmp_path, gzip.compress(TWO_COLUMNS.encode(), mtime=0), "data.tsv.gz")
    assert len(list(read_sentences(path))) == 2


def test_columns_can_be_chosen(tmp_path):
    path = written(tmp_path, "1 Anna NE B-NP B-PER\n2 lacht VVFIN B-VP O\n")
    assert list(read_sentences(path, word_column=1)) == [(["Anna", "lacht"], ["B-PER", "O"])]
    assert list(read_sentences(path, word_column=1, label_column=2)) == [(["Anna", "lacht"], ["NE", "VVFIN"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Anna\tB-PER\nschläft\n", "line 2: expected a word and a label"),
        ("Anna\tB-PER\n\tO\n", "line 2: the word '' is empty"),
        ("New York\tB-LOC\n", "line 1: the word 'New York' is empty or contains a space"),
        ("10\u00a0000\tO\n", r"line 1: the word .* contains a space"),
        ("Anna\t\n", "line 1: the label '' is empty"),
        ("<pad>\tO\n", "line 1: the word '<pad>' is a symbol of fairseq"),
        ("x\t<unk>\n", "line 1: the label '<unk>' is a symbol of fairseq"),
        ("", "no sentences"),
        ("\n\n", "no sentences"),
        (b"\xff\xfe\tO\n", "line 1: not UTF-8"),
        (b"Anna\tO\n\n\xe4\tO\n", "line 3: not UTF-8"),
        ("Anna\tO\nRom\tNE\tO\n", "line 2: 3 columns, but line 1 of the sentence has 2"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        convert(path, tmp_path / "out")
    assert str(path) in str(error.value)
    assert not (tmp_path / "out.words").exists()


# ---- comments, documents, CoNLL-U --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-DOCSTART-\n\nEU B-ORG\nx O\n", [("EU x", "B-ORG O")]),
        ("-DOCSTART- -X- O\nEU NN B-ORG\n-DOCSTART- -X- O\nx NN O\n", [("EU", "B-ORG"), ("x", "O")]),
        ("# sent_id = 1\n# text = a b c\nEU B-ORG\nx O\n", [("EU x", "B-ORG O")]),
        ("# O\nhashtag O\n\n#fail O\n", [("# hashtag", "O O"), ("#fail", "O")]),
        ("#\tO\n", [("#", "O")]),
        ("# newdoc\n\nEU\tB-ORG\n\n# O\n#\tO\nx\tO\n", [("EU", "B-ORG"), ("# x", "O O")]),
        ("#begin document (a); part 0\na b c\n\n#end document\n", [("a", "c")]),
        ("10\u00a0000 CD O\n", "line 1: the word '10\\\\xa0000' is empty or contains a space"),
        ("a O\n# a comment in the sentence\nb O\n", "line 2: 6 columns, but line 1 of the sentence has 2"),
    ],
    ids=[
        "bare",
        "inside",
        "CoNLL-U",
        "hash words",
        "one hash",
        "shapes",
        "CoNLL-2012",
        "nbsp",
        "comment inside",
    ],
)
def test_what_is_no_token_is_left_out_or_named(tmp_path, text, expected):
    path = written(tmp_path, text)
    if isinstance(expected, str):
        with pytest.raises(FormatError, match=expected):
            list(read_sentences(path))
    else:
        assert [(" ".join(words), " ".join(labels)) for words, labels in read_sentences(path)] == expected


def test_germeval_comments(tmp_path):
    text = "#\thttp://x.de [2009]\n1\tEU\tB-ORG\tO\n2\trejects\tO\tO\n\n#\thttp://y.de [2009]\n1\tx\tO\tO\n"
    sentences = list(read_sentences(written(tmp_path, text), word_column=1, label_column=2))
    assert sentences == [(["EU", "rejects"], ["B-ORG", "O"]), (["x"], ["O"])]


def test_conllu_words_without_ranges_and_empty_nodes(tmp_path):
    rows = [
        ("1", "I", "PRON"),
        ("2-3", "don't", "_"),
        ("2", "do", "AUX"),
        ("3", "n't", "PART"),
        ("3.1", "x", "X"),
    ]
    columns = ["\t".join([number, word, "_", tag, *"______"]) for number, word, tag in rows]
    path = written(tmp_path, "\n".join(["# text = I don't", *columns, ""]))
    expected = [(["I", "do", "n't"], ["PRON", "AUX", "PART"])]
    for word_column, label_column in ((1, 3), (-9, -7)):
        assert list(read_sentences(path, word_column, label_column)) == expected
    for word_column in (0, -10):
        with pytest.raises(FormatError, match=r"has the numbers of the words .* --word-column"):
            convert(path, tmp_path / "out", word_column, 3)


def test_numbers_that_are_words_are_kept(tmp_path):
    path = written(tmp_path, "1 O\n2-3 O\n\n1 O\n: O\n2.1 O\n")
    assert [words for words, _ in read_sentences(path)] == [["1", "2-3"], ["1", ":", "2.1"]]


# ---- white space as fairseq sees it ------------------------------------------------------------


def test_words_are_refused_exactly_where_fairseq_would_cut_them(tmp_path):
    cut = {c for c in map(chr, range(sys.maxunicode + 1)) if tokenize_line(f"a{c}b") != [f"a{c}b"]}
    assert {"\u00a0", "\u2028", "\x1c", "\x85"} < cut
    for character in cut - {"\n", "\r", "\t"}:
        with pytest.raises(FormatError, match=r"line 1: the word .* contains a space"):
            list(read_sentences(written(tmp_path, f"a{character}b\tO\n")))
        path = written(tmp_path, f"a{character}b\tO\n")
        assert list(read_sentences(path, replace_spaces="_")) == [(["a_b"], ["O"])]
    for character in ("\u200b", "\ufeff", "\u0301"):
        assert list(read_sentences(written(tmp_path, f"a{character}b\tO\n"))) == [([f"a{character}b"], ["O"])]


@settings(max_examples=cases(75, 600))
@given(content=damaged("\ufeff#\tx\n1\tAnna\tB-PER\tO\n2-3\tx\t_\t_\n2\t's\tO\tO\n\n1\tRom\tO\tO\n".encode()))
def test_damaged_files_are_converted_for_fairseq_or_refused(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    try:
        counts = convert(written(folder, content), folder / "out", word_column=1, label_column=2)
    except FormatError as error:
        assert str(error).startswith(str(folder / "data.tsv")) and len(str(error).splitlines()) == 1
        assert not list(folder.glob("out*"))
        return
    lines = [
        (folder / f"out.{suffix}").read_text(encoding="utf-8").split("\n") for suffix in ("words", "labels")
    ]
    words, labels = ([tokenize_line(line) for line in part[:-1]] for part in lines)
    assert [len(line) for line in words] == [len(line) for line in labels]
    assert (len(words), sum(map(len, words))) == counts and all(words)


@settings(max_examples=cases(15, 120))
@given(content=damaged(TWO_COLUMNS.encode(), zipped=True))
def test_damaged_gz_files_are_converted_or_refused(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    try:
        convert(written(folder, content, "data.gz"), folder / "out")
    except FormatError as error:
        assert str(error).startswith(str(folder / "data.gz")) and len(str(error).splitlines()) == 1
        assert not list(folder.glob("out*"))


# ---- the command line ----------------------------------------------------------------------------


def test_too_few_columns(tmp_path):
    with pytest.raises(ValueError, match="line 1: only 2 columns"):
        convert(written(tmp_path, "a b\n"), tmp_path / "out", word_column=2)


def test_broken_gzip(tmp_path):
    path = written(tmp_path, b"no gzip", "data.gz")
    with pytest.raises(ValueError, match=r"data\.gz"):
        convert(path, tmp_path / "out")


def test_command_line(tmp_path, capsys):
    path = str(written(tmp_path, TWO_COLUMNS))
    main(["--out", str(tmp_path / "text"), "--train", path, "--valid", path, "--limit", "1"])
    assert (tmp_path / "text" / "train.words").read_text() == "Anna schläft\n"
    assert len((tmp_path / "text" / "valid.words").read_text().splitlines()) == 2
    assert "1 sentences, 2 words" in capsys.readouterr().out


def test_command_line_ends_with_one_message(tmp_path):
    with pytest.raises(SystemExit, match=r"convert_conll: .*missing"):
        main(["--out", str(tmp_path), "--train", str(tmp_path / "missing.tsv")])
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--train", "x", "--limit", "0"])


def test_nothing_is_written_if_one_of_the_files_is_bad(tmp_path):
    good, bad = written(tmp_path, TWO_COLUMNS, "good.tsv"), written(tmp_path, b"a\tO\n\xff\tO\n", "bad.tsv")
    with pytest.raises(SystemExit, match=r"convert_conll: .*bad\.tsv, line 2: not UTF-8"):
        main(["--out", str(tmp_path / "text"), "--train", str(good), "--test", str(bad)])
    assert not (tmp_path / "text").exists()


def test_words_are_not_replaced_without_their_labels(tmp_path):
    (tmp_path / "out.words").write_text("before\n")
    (tmp_path / "out.labels").mkdir()
    with pytest.raises(OSError, match=r"cannot write .*out\.labels"):
        convert(written(tmp_path, TWO_COLUMNS), tmp_path / "out")
    assert (tmp_path / "out.words").read_text() == "before\n"


def test_real_data_has_as_many_sentences_as_published(real_data, tmp_path):
    folder = real_data / "ner_germeval14"
    assert convert(folder / "dev.conll.gz", tmp_path / "dev") == (2200, 41653)
    assert convert(real_data / "ccg_ewt" / "dev.tsv.gz", tmp_path / "ccg") == (1864, 21873)
