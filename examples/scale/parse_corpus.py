"""A corpus of any size through a spaCy pipeline, shard by shard, on one machine or many.

    python -m examples.scale.parse_corpus model-best corpus/*.txt.gz --out parsed --workers 2
    python -m examples.scale.parse_corpus model-best corpus/*.spacy --out parsed --to parquet --address auto

A shard is a file: text with one document a line (``.gz`` too), JSON lines with a ``text``, or a DocBin.
Each becomes one file in ``--out``, which is written beside its place and renamed: a command that is started
again parses only what is missing. With Ray (``pip install "diffdecode[scale]"``) every worker is a process
with a pipeline of its own, here or on the machines of a cluster; with ``--workers 0`` it is spaCy's
``n_process`` in this process alone, and Ray is not needed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from diffdecode.files.atomic import read_json, write_bytes, write_json
from diffdecode.files.text import FormatError, numbered_lines

FORMATS = {"docbin": ".spacy", "parquet": ".parquet"}
INPUTS = (".txt.gz", ".jsonl.gz", ".txt", ".jsonl", ".spacy")
RECORD = "parse_corpus.json"
NO_RAY = 'Ray is not installed: pip install "diffdecode[scale]", or --workers 0 for this process alone'


@dataclass(frozen=True)
class Shard:
    """A file to parse, and where its parses go."""

    source: str
    target: str


def shards(sources: Sequence[Path], out: Path, form: str) -> list[Shard]:
    """What there is to do, in the order of the files. Raises ValueError for two of one name."""
    found: dict[str, Shard] = {}
    for source in sources:
        suffix = next((suffix for suffix in INPUTS if source.name.endswith(suffix)), None)
        if suffix is None:
            raise ValueError(f"{source}: expected one of {', '.join(INPUTS)}")
        if not source.is_file():
            raise FileNotFoundError(f"{source}: there is no such file")
        target = out / (source.name.removesuffix(suffix) + FORMATS[form])
        if target.resolve() == source.resolve():
            raise ValueError(f"{source} is in --out and would be written over: choose another folder")
        if target.name in found:
            raise ValueError(f"{source} and {found[target.name].source} would both become {target}")
        found[target.name] = Shard(str(source.resolve()), str(target.resolve()))
    return list(found.values())


def begin(out: Path, pipeline: str, form: str) -> None:
    """Note in the folder what makes it; raises ValueError if it was begun with something else."""
    said, path = {"pipeline": pipeline, "to": form}, out / RECORD
    if path.is_file() and (before := read_json(path)) != said:
        raise ValueError(f"{out} was begun with {before}, this is {said}: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, said)


# ---- one shard: all that a worker does


def read_shard(path: str, nlp: Language) -> Iterator[str | Doc]:
    """The documents of a shard. Raises ValueError, with its name, for what cannot be read."""
    if path.endswith(".spacy"):
        try:
            yield from DocBin(store_user_data=True).from_disk(path).get_docs(nlp.vocab)
        except Exception as error:
            raise ValueError(f"{path} is no DocBin ({error!r:.80})") from error
        return
    for number, line in numbered_lines(path):
        if line and ".jsonl" in path[-9:]:
            try:
                line = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                raise FormatError(path, number, 'expected JSON with a "text"') from None
        if line:
            yield line


def parse_shard(nlp: Language, shard: Shard, n_process: int = 1) -> dict[str, str | int]:
    """Parse a shard and write its file.

    Args:
        nlp: the pipeline.
        shard: what to parse.
        n_process: of ``nlp.pipe``.

    Returns:
        the shard's ``source``, and how many ``docs`` and ``words`` it has.
    """
    docs = list(nlp.pipe(read_shard(shard.source, nlp), n_process=n_process))
    write_bytes(shard.target, as_parquet(docs) if shard.target.endswith(".parquet") else as_docbin(docs))
    return {"source": shard.source, "docs": len(docs), "words": sum(map(len, docs))}


def as_docbin(docs: Iterable[Doc]) -> bytes:
    """Everything that is on the documents."""
    return DocBin(docs=docs, store_user_data=True).to_bytes()


def as_parquet(docs: Iterable[Doc]) -> bytes:
    """A row a document: text, words, tags, heads (a root's is its own), labels, sentence starts, entities."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers, strings = pa.list_(pa.int32()), pa.list_(pa.string())
    entity = pa.struct({"start": pa.int32(), "end": pa.int32(), "label": pa.string()})
    schema = {
        "text": pa.string(),
        "words": strings,
        "tags": strings,
        "heads": numbers,
        "deps": strings,
        "sentence_starts": numbers,
        "entities": pa.list_(entity),
    }
    rows = [
        {
            "text": doc.text,
            "words": [token.text for token in doc],
            "tags": [token.tag_ for token in doc],
            "heads": [token.head.i for token in doc],
            "deps": [token.dep_ for token in doc],
            "sentence_starts": [token.i for token in doc if token.is_sent_start],
            "entities": [{"start": e.start, "end": e.end, "label": e.label_} for e in doc.ents],
        }
        for doc in docs
    ]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(schema)), file)
    return file.getvalue()


class ShardParser:
    """A worker: it loads the pipeline once, and takes one shard after the other.

    Args:
        pipeline: its name or folder.
    """

    def __init__(self, pipeline: str):
        self.nlp = spacy.load(pipeline)

    def __call__(self, row: dict[str, str]) -> dict[str, str | int]:
        """One row of the data set of shards."""
        return parse_shard(self.nlp, Shard(**row))


# ---- all of them


def by_ray(
    pipeline: str, todo: Sequence[Shard], workers: int, address: str | None
) -> Iterator[dict[str, str | int]]:
    """Parse on a cluster; what each shard was, as soon as it is finished.

    Args:
        pipeline: its name, or a folder that every machine sees.
        todo: the shards; every machine sees their files.
        workers: processes with a pipeline each, on one core each.
        address: of a cluster; by default one is started here, for these workers.

    Raises:
        ValueError: there is no Ray, or a shard cannot be parsed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError(NO_RAY) from None
    mine = not ray.is_initialized()
    if mine:
        local = {} if address else {"num_cpus": workers, "include_dashboard": False}
        ray.init(address=address, log_to_driver=False, logging_level="error", **local)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"source": shard.source, "target": shard.target} for shard in todo]
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        ShardParser,
        fn_constructor_args=(pipeline,),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    try:
        yield from data.iter_rows()
    except ray.exceptions.RayError as error:
        raise ValueError(str(error).strip().splitlines()[-1]) from error
    finally:
        if mine:
            ray.shutdown()


def here(pipeline: str, todo: Sequence[Shard], n_process: int) -> Iterator[dict[str, str | int]]:
    """Parse in this process, or with spaCy's own ``n_process``."""
    nlp = spacy.load(pipeline)
    for shard in todo:
        yield parse_shard(nlp, shard, n_process)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    from examples._shared.commands import one_line_errors  # a worker elsewhere needs this file alone

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", help="a trained pipeline: its name or folder")
    parser.add_argument("shards", type=Path, nargs="+", help=f"files that end in {', '.join(INPUTS)}")
    parser.add_argument("--out", type=Path, required=True, help="folder of the parses, a file a shard")
    parser.add_argument("--to", choices=list(FORMATS), default="docbin", help="what is written")
    parser.add_argument("--workers", type=int, default=2, help="Ray's processes; 0: without Ray")
    parser.add_argument("--address", help="of a Ray cluster, or auto; by default one is started here")
    parser.add_argument("--n-process", type=int, default=1, help="spaCy's, with --workers 0")
    options = parser.parse_args(arguments)
    with one_line_errors("parse_corpus"):
        folder = Path(options.pipeline)
        pipeline = str(folder.resolve()) if folder.is_dir() else options.pipeline
        every = shards(options.shards, options.out, options.to)
        begin(options.out, pipeline, options.to)
        todo = [shard for shard in every if not Path(shard.target).is_file()]
        print(f"{len(every)} shards, {len(every) - len(todo)} of them finished before", flush=True)
        if not todo:
            return
        finished = (
            by_ray(pipeline, todo, options.workers, options.address)
            if options.workers
            else here(pipeline, todo, options.n_process)
        )
        with contextlib.closing(finished):
            report(finished, len(todo))


def report(finished: Iterable[dict[str, str | int]], count: int) -> None:
    """Print a line a shard; the speed is measured from the first to the last, so without loading."""
    words, since, start = 0, 0, time.perf_counter()
    first = start
    for number, shard in enumerate(finished, 1):
        now = time.perf_counter()
        words += shard["words"]
        if number == 1:
            first = now
        else:
            since += shard["words"]
        speed = f", {since / (now - first):,.0f} words/s" if since else ""
        name = Path(shard["source"]).name
        print(f"{number}/{count} {name}: {shard['docs']} documents; {words:,} words{speed}", flush=True)
    print(f"{words:,} words in {time.perf_counter() - start:.1f} s, the start included")


if __name__ == "__main__":
    main()
