"""Two formalisms of semantic dependencies, learned alone and together (Peng, Thomson and Smith, 2017).

DM and enhanced Universal Dependencies, of different texts; with --quick, in seconds, a generated language and
two kinds of graphs over its trees::

    python -m examples.spacy.freda
    python -m examples.spacy.freda --quick

Systems: ``alone`` (each formalism has the same two encoders, and nobody to share them with), ``longer`` (the
same, for as many steps as two formalisms together take), ``shared`` (the paper's SHARED1: one encoder for
both), ``freda`` (FREDA1: a shared encoder beside one for each), and both with parts across the formalisms and
one decision on both graphs: ``shared3`` and ``freda3``. But for ``longer``, each formalism sees the same
number of its own words in all of them. The paper's texts have all graphs. Those here have one each, and the
other one is summed out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import DocBin

from diffdecode.files.atomic import write_bytes
from examples._shared.commands import add_device, add_out, one_line_errors
from examples._shared.runs import done_once
from examples._shared.spacy_training import converted, learn_rate, train_from_scratch, use_device
from examples._shared.tables import save_table, spread
from examples._shared.toy_corpus import corpus, with_graph
from examples.spacy._configs import CONFIGS
from spacy_components.training.corpus import create_corpus

KEYS = ("dm", "eud")
NAMES = {"dm": "DM", "eud": "enhanced UD"}
SYSTEMS = {
    "alone": [("dm",), ("eud",)],
    "longer": [("dm",), ("eud",)],
    **{system: [KEYS] for system in ("shared", "freda", "shared3", "freda3")},
}
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "dm": ("sdp_dm_wescience/{}.sdp.gz", {"key": "dm"}),
    "eud": (
        "ud_english_ewt/en_ewt-ud-{}.conllu.gz",
        {"key": "eud", "graph": True, "tree": False, "subtypes": False},
    ),
}


@one_line_errors("freda")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.spacy.freda", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="a generated language, 2 seeds, few steps")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dm-sentences", type=int, default=1500, help="0 for all 8,002")
    parser.add_argument("--eud-sentences", type=int, default=1900, help="0 for all 12,544")
    parser.add_argument("--dev-sentences", type=int, default=0, help="of each formalism; 0 for all")
    parser.add_argument("--steps", type=int, default=300, help="of 1000 words, for each formalism")
    parser.add_argument("--learn-rate", type=float, default=0.002)
    parser.add_argument("--vectors", help="a pipeline with word vectors (python -m examples.spacy.glove)")
    add_out(parser, "runs/spacy-freda")
    add_device(parser, "cpu")
    args = parser.parse_args(argv)
    use_device(args.device)
    if args.quick:
        args.seeds, args.steps, args.out = args.seeds[:2], min(args.steps, 12), args.out / "quick"
    paths = generated(args.out) if args.quick else real(args)
    found_by = {system: [] for system in args.systems}
    for seed in args.seeds:
        for system, found in found_by.items():
            found.append(scores(system, seed, paths, args))
    rows = []
    for system, found in found_by.items():
        columns = [spread([100 * result[f"{key}_lf"] for result in found], 2) for key in KEYS]
        rows.append([system, *columns, f"{sum(result['seconds'] for result in found) / len(found):.0f}"])
    header = ["system", *(f"{NAMES[key]} LF" for key in KEYS), "CPU s"]
    caption = (
        f"Labelled F1 on dev after {args.steps} steps a formalism, seeds {', '.join(map(str, args.seeds))}"
    )
    save_table(args.out / "table.md", caption, header, rows)


def scores(system: str, seed: int, paths: dict[str, str], args: argparse.Namespace) -> dict[str, float]:
    """Labelled F1 of both formalisms, by the last pipeline of each run, and the CPU time of the runs."""
    found: dict[str, float] = {"seconds": 0.0}
    for keys in SYSTEMS[system]:
        folder = args.out / f"{system}-{'-'.join(keys)}-{seed}"
        settings = _settings(system, keys, seed, args)

        def work(folder: Path = folder, settings: dict[str, Any] = settings, keys=keys) -> dict[str, float]:
            started = time.process_time()
            train_from_scratch(CONFIGS / "freda.cfg", folder, paths | settings)
            seconds = time.process_time() - started
            nlp = spacy.load(folder / "model-last")
            measured = {key: nlp.evaluate(list(_dev(paths, key)(nlp)))[f"{key}_lf"] for key in keys}
            return {f"{key}_lf": value for key, value in measured.items()} | {"seconds": seconds}

        result = done_once(folder / "scores.json", paths | settings, work)
        found |= {**result, "seconds": found["seconds"] + result["seconds"]}
    return found


def _dev(paths: dict[str, str], key: str):
    return create_corpus(paths[f"paths.dev_{key}"])


def _settings(system: str, keys: tuple[str, ...], seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """What is special about a system."""
    steps = args.steps * (1 if system == "alone" else len(KEYS))
    settings: dict[str, Any] = {
        "nlp.pipeline": ["joint"] if system.endswith("3") else ["tok2vec", *keys],
        "paths.vectors": args.vectors,
        "system.seed": seed,
        "training.max_steps": steps,
        "training.eval_frequency": steps,
        "training.score_weights": {f"{key}_lf": 1 / len(keys) for key in keys},
        **learn_rate(args.learn_rate, steps),
    }
    for split in ("train", "dev"):
        settings[f"corpora.{split}.fractions"] = {key: float(key in keys) for key in KEYS}
    if system == "shared":
        listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 96, "upstream": "tok2vec"}
        settings |= {f"components.{key}.model.tok2vec": listener for key in KEYS}
    if system == "shared3":
        settings |= {"components.joint.model.first": None, "components.joint.model.second": None}
    return settings


def real(args: argparse.Namespace) -> dict[str, str]:
    """The files of the two corpora, made if they are not there."""
    paths = {}
    for key, (source, options) in SOURCES.items():
        limit = getattr(args, f"{key}_sentences")
        train = args.out / f"{key}-train-{limit}.spacy"
        paths[f"paths.{key}"] = converted(source.format("train"), train, limit=limit, **options)
        dev = args.out / f"{key}-dev-{args.dev_sentences}.spacy"
        paths[f"paths.dev_{key}"] = converted(source.format("dev"), dev, limit=args.dev_sentences, **options)
    return paths


def generated(folder: Path) -> dict[str, str]:
    """Files of generated sentences with two graphs: the tree, and that of its grandparents and siblings."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, vocab = {}, spacy.blank("en").vocab
    for number, split in enumerate(("", "dev_")):
        for place, key in enumerate(KEYS):
            docs = corpus(vocab, 60 if split else 200, 2 * number + place, trees=True, classes=False)
            path = folder / f"{split}{key}.spacy"
            docbin = DocBin(
                docs=[with_graph(doc, key, far=key == "eud") for doc in docs], store_user_data=True
            )
            write_bytes(path, docbin.to_bytes())
            paths[f"paths.{split}{key}"] = str(path)
    return paths


if __name__ == "__main__":
    main()
