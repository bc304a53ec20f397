"""A corpus through a pipeline by shards: read, written, resumed, with Ray and without."""

import gzip
import json

import pytest
import spacy
from spacy.tokens import DocBin

from examples.scale import parse_corpus

TEXTS = ["He came. He saw.", "She left.", "Nobody was there. So?"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    nlp.to_disk(folder)
    return str(folder)


@pytest.fixture
def corpus(tmp_path):
    """The same documents in every format, as shards of one corpus."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("\n".join(TEXTS) + "\n\n", encoding="utf-8")
    with gzip.open(folder / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text, "id": 3}) + "\n" for text in TEXTS)
    DocBin(docs=[spacy.blank("en")(text) for text in TEXTS]).to_disk(folder / "c.spacy")
    return sorted(map(str, folder.iterdir()))


def sentences(path):
    docs = DocBin().from_disk(path).get_docs(spacy.blank("en").vocab)
    return [[sentence.text for sentence in doc.sents] for doc in docs]


def run(pipeline, corpus, out, *options):
    parse_corpus.main([pipeline, *corpus, "--out", str(out), *options])
    return {path.name: path.read_bytes() for path in out.iterdir()}


EXPECTED = [["He came.", "He saw."], ["She left."], ["Nobody was there.", "So?"]]


def test_every_format_is_read_and_a_finished_shard_is_left_alone(pipeline, corpus, tmp_path, capsys):
    out = tmp_path / "out"
    made = run(pipeline, corpus, out, "--workers", "0")
    assert set(made) == {"a.spacy", "b.spacy", "c.spacy", parse_corpus.RECORD}
    assert [sentences(out / name) for name in ("a.spacy", "b.spacy", "c.spacy")] == [EXPECTED] * 3
    assert "3/3 c.spacy: 3 documents" in capsys.readouterr().out
    (out / "a.spacy").write_bytes(b"finished")
    (out / "b.spacy").unlink()
    assert run(pipeline, corpus, out, "--workers", "0") == made | {"a.spacy": b"finished"}
    printed = capsys.readouterr().out
    assert "3 shards, 2 of them finished before" in printed and "1/1 b.jsonl.gz" in printed


def test_parquet_has_what_the_documents_have(pipeline, corpus, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, which comes with Ray Data")
    run(pipeline, corpus, tmp_path / "out", "--workers", "0", "--to", "parquet")
    for name in "abc":
        rows = parquet.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
        assert [row["text"] for row in rows] == TEXTS
        assert rows[0]["words"] == ["He", "came", ".", "He", "saw", "."]
        assert rows[0]["sentence_starts"] == [0, 3] and rows[0]["heads"] == list(range(6))


def test_what_is_wrong_is_said_in_one_line(pipeline, corpus, tmp_path, monkeypatch):
    def said(sources, *options, out=tmp_path / "out"):
        with pytest.raises(SystemExit) as end:
            run(pipeline, sources, out, *options)
        return str(end.value)

    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"words": 1}\n', encoding="utf-8")
    assert said([str(bad)], "--workers", "0") == f'parse_corpus: {bad}, line 2: expected JSON with a "text"'
    assert "expected one of .txt.gz" in said([str(tmp_path)])
    assert "there is no such file" in said([str(tmp_path / "none.txt")])
    damaged = tmp_path / "c.spacy"
    damaged.write_bytes(b"nothing")
    assert "would both become" in said([*corpus, str(damaged)])
    assert "is no DocBin" in said([str(damaged)], "--workers", "0")
    assert "would be written over" in said([str(damaged)], out=tmp_path)
    assert "choose another --out" in said(corpus, "--to", "parquet")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert said(corpus) == f"parse_corpus: {parse_corpus.NO_RAY}"


def test_two_workers_of_a_cluster_write_what_one_process_writes(pipeline, corpus, tmp_path):
    pytest.importorskip("ray.data", reason="needs Ray: pip install 'diffdecode[scale]'")
    alone = run(pipeline, corpus, tmp_path / "alone", "--workers", "0")
    assert run(pipeline, corpus, tmp_path / "together", "--workers", "2") == alone
