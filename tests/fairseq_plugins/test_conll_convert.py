"""The converter of column files: what it writes, and one clear error for each kind of bad line."""

import gzip

import pytest

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
    path = written(tmp_path, gzip.compress(TWO_COLUMNS.encode()), "data.tsv.gz")
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
        (b"\xff\xfe\tO\n", "not readable as UTF-8"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        convert(path, tmp_path / "out")
    assert str(path) in str(error.value)
    assert not (tmp_path / "out.words").exists()


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


def test_real_data_has_as_many_sentences_as_published(real_data, tmp_path):
    folder = real_data / "ner_germeval14"
    assert convert(folder / "dev.conll.gz", tmp_path / "dev") == (2200, 41653)
    assert convert(real_data / "ccg_ewt" / "dev.tsv.gz", tmp_path / "ccg") == (1864, 21873)
