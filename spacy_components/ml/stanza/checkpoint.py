"""Stanza's checkpoints of graph-based dependency parsers, read into plain data and tensors and written again.

A checkpoint does not hold everything: word vectors, character language models and a transformer that was not
finetuned lie in files of their own. Here they are read once and become part of the parser.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffdecode.files.atomic import write_bytes
from spacy_components.ml.thinc_glue.untrusted import UnusableFile, bare_name, blamed_on

MODEL_TYPES = {
    "transition": "a transition-based parser, which has no scores of arcs",
    "ensemble_graph": "an ensemble; import one of its members",
    "ensemble_transition": "an ensemble of transition-based parsers, which have no scores of arcs",
}
CHARLMS = {"charmodel_forward": "charlm_forward_file", "charmodel_backward": "charlm_backward_file"}
"""Character language models: Stanza's module, and the setting that names its file."""


class CheckpointFiles(NamedTuple):
    """Where a parser comes from.

    Attributes:
        checkpoint: Stanza's ``.pt`` file.
        pretrain: its word vectors (Stanza's ``.pt`` of vectors), if it has any.
        charlm_forward, charlm_backward: its character language models, if it has any.
        transformer: folder or name of its transformer, if not the name in the checkpoint.
    """

    checkpoint: str | Path
    pretrain: str | Path | None = None
    charlm_forward: str | Path | None = None
    charlm_backward: str | Path | None = None
    transformer: str | Path | None = None


def read_checkpoint(files: CheckpointFiles) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a parser and all that belongs to it; nothing in the files is executed.

    Args:
        files: the files.

    Returns:
        what ``build_net`` takes, plain data that msgpack can store; and the values of all parameters of
        the module it builds.

    Raises:
        UnusableFile: the file holds no graph-based parser that can be used, or a file is missing.
    """
    require_stanza()
    found = _load(files.checkpoint)
    with blamed_on(str(files.checkpoint)):
        _refuse_unsupported(found, files.checkpoint)
        config = {name: getattr(value, "name", value) for name, value in found["config"].items()}  # of enums
        parts = {"config": _plain(config), "vocab": _plain(found["vocab"])}
        state = dict(found["model"])
        for name, value in (
            ("pretrain", _read_pretrain(files, config, state)),
            ("charlms", _read_charlms(files, config, state)),
            ("transformer", _read_transformer(files, config, state)),
        ):
            if value is not None:
                parts[name] = value
    return parts, state


def build_net(
    config: dict[str, Any],
    vocab: dict[str, Any],
    pretrain: dict[str, Any] | None = None,
    charlms: dict[str, Any] | None = None,
    transformer: dict[str, Any] | None = None,
) -> nn.Module:
    """Stanza's module, with values yet to be loaded.

    Args:
        config: Stanza's settings.
        vocab: state of Stanza's vocabularies.
        pretrain: shape of the word vectors, and state of their vocabulary.
        charlms: what the character language models are made from.
        transformer: settings of the transformer and files of its tokenizer.

    Returns:
        a ``GraphParser``.

    Raises:
        UnusableFile: the vocabularies are no vocabularies.
    """
    require_stanza()
    from stanza.models.depparse.model import GraphParser
    from stanza.models.pos.vocab import MultiVocab

    bert_model, bert_tokenizer, saved = _build_transformer(transformer)
    name = config["bert_model"] if transformer else None
    with TemporaryDirectory() as folder:  # Stanza takes a character language model from a file only
        net = GraphParser(
            config | {"bert_model": name} | _write_charlms(charlms, Path(folder)),
            MultiVocab.load_state_dict(vocab),
            emb_matrix=None if pretrain is None else torch.zeros(pretrain["shape"]),
            bert_model=bert_model,
            bert_tokenizer=bert_tokenizer,
            force_bert_saved=saved,
        )
    net.bert_finetuning = saved
    _require_vocabularies(net)
    return net


def _require_vocabularies(net: nn.Module) -> None:
    names = net.vocab.keys()
    charlms = [getattr(net, module).vocab["char"] for module in CHARLMS if hasattr(net, module)]
    for vocab in [*(net.vocab[name] for name in names), *charlms]:
        require_vocabulary(vocab)


def require_vocabulary(vocab: Any) -> None:
    """Check that any word finds a row of a vocabulary's embedding.

    Args:
        vocab: one of Stanza's vocabularies.

    Raises:
        UnusableFile: the number of one of its units is none.
    """
    from stanza.models.common.vocab import UNK, CompositeVocab

    units, numbers = vocab._id2unit, vocab._unit2id
    keys = list(units) if isinstance(vocab, CompositeVocab) else None
    parts = [(units, numbers)] if keys is None else [(units[key], numbers[key]) for key in keys]
    for units_of_part, number in parts:
        texts = all(isinstance(unit, str) for unit in units_of_part)
        rows = all(type(i) is int and 0 <= i < len(units_of_part) for i in number.values())
        if not (texts and rows and UNK in number):
            raise UnusableFile(f"a {type(vocab).__name__} of a Stanza parser has units without a number")


def write_checkpoint(net: nn.Module, config: dict[str, Any], path: str | Path) -> None:
    """Write a file that Stanza loads, like the one that was read.

    As in Stanza, word vectors, character language models and a transformer that is not finetuned are left
    out: they never change, and the original files go with the new one.

    Args:
        net: the parser.
        config: Stanza's settings.
        path: the file.
    """
    state = {name: value.detach().cpu() for name, value in net.get_params(True).items()}
    content = {
        "model": state,
        "vocab": net.vocab.state_dict(),
        "config": config,
        "global_step": 0,
        "last_best_step": 0,
        "dev_score_history": [],
        "model_type": "graph",
    }
    _save(content, path)


def write_inputs(net: nn.Module, pretrain_vocab, folder: str | Path) -> list[Path]:
    """Write what a checkpoint leaves out, in files of their own as Stanza has them.

    Args:
        net: the parser.
        pretrain_vocab: vocabulary of its word vectors, or None.
        folder: where to.

    Returns:
        those of ``pretrain.pt``, ``charlm_forward.pt`` and ``charlm_backward.pt`` that the parser uses.
    """
    folder, written = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    if pretrain_vocab is not None:
        vectors = {"vocab": pretrain_vocab.state_dict(), "emb": net.pretrained_emb.weight.detach().cpu()}
        written.append(folder / "pretrain.pt")
        _save(vectors, written[-1])
    for module in CHARLMS:
        if hasattr(net, module):
            written.append(folder / f"{_option(module)}.pt")
            _save(getattr(net, module).full_state(), written[-1])
    return written


def _save(content: dict[str, Any], path: str | Path) -> None:
    """Write a file as Stanza does. torch writes past Python's files, and does not say when a disk is full."""
    written = io.BytesIO()
    torch.save(content, written, _use_new_zipfile_serialization=False)
    write_bytes(path, written.getbuffer())


def require_stanza() -> None:
    """Raises ImportError if there is no Stanza, ValueError if it is too old."""
    try:
        import stanza
    except ImportError as error:
        raise ImportError(
            "a Stanza parser needs the package stanza: pip install 'diffdecode[stanza]'"
        ) from error
    from stanza.models.depparse import model

    if not hasattr(getattr(model, "GraphParser", None), "forward_scores"):
        raise ValueError(
            f"stanza {stanza.__version__} does not give out the scores of arcs; pip install 'stanza>=1.12'"
        )


def _load(path: str | Path) -> dict[str, Any]:
    if not Path(path).is_file():
        raise UnusableFile(f"there is no file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes an unpickler say
        raise UnusableFile(
            f"{path} is no file of Stanza's, or one from a version so old that loading it could execute what "
            "is in it. In the second case load and save it once with stanza 1.12.1."
        ) from error


def _refuse_unsupported(found: Any, path: str | Path) -> None:
    """Raises UnusableFile for everything but a graph-based dependency parser."""
    if not isinstance(found, dict) or not {"model", "vocab", "config"} <= set(found):
        raise UnusableFile(f"{path} is no checkpoint of a Stanza model (it lacks model, vocab or config)")
    if not all(isinstance(found[part], Mapping) for part in ("model", "vocab", "config")):
        raise UnusableFile(f"{path} is damaged: its model, vocab and config are no tables")
    if "deprel" not in found["vocab"]:
        raise UnusableFile(f"{path} is no dependency parser: its vocabulary has no relations (deprel)")
    older = "transition" if "output_basic.weight" in found["model"] else "graph"
    kind = found.get("model_type") or older
    if kind != "graph":
        raise UnusableFile(f"{path} is {MODEL_TYPES.get(kind, kind)}. Only graph-based parsers can be used.")
    if found["config"].get("reversed"):
        raise UnusableFile(f"{path} was trained with --reversed: it reads sentences from right to left")
    if found["config"].get("use_peft") or found.get("bert_lora"):
        raise UnusableFile(f"{path} has LoRA weights (use_peft), which are not supported")
    for name, value in found["model"].items():
        if not isinstance(value, Tensor) or not value.isfinite().all():
            raise UnusableFile(
                f"{path} is damaged: its parameter {name!r:.80} is no tensor of finite numbers"
            )


def _plain(value: Any) -> Any:
    """Nested dicts, lists and plain values only, in their order."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _read_pretrain(files: CheckpointFiles, config: dict[str, Any], state: dict[str, Tensor]):
    if not config["pretrain"]:
        return None
    if files.pretrain is None:
        raise UnusableFile(
            f"{files.checkpoint} uses word vectors, which are in a file of their own: give it as --pretrain "
            "(in a config: pretrain)"
        )
    found = _load(files.pretrain)
    if not isinstance(found, dict) or not {"emb", "vocab"} <= set(found):
        raise UnusableFile(f"{files.pretrain} holds no word vectors of Stanza's (it lacks emb or vocab)")
    vectors = torch.as_tensor(found["emb"])
    expected = state["trans_pretrained.weight"].shape[1]
    if vectors.shape[1] != expected:
        raise UnusableFile(
            f"the vectors in {files.pretrain} have {vectors.shape[1]} numbers, but {files.checkpoint} was "
            f"trained with {expected}"
        )
    state["pretrained_emb.weight"] = vectors
    return {"shape": list(vectors.shape), "vocab": _plain(found["vocab"])}


def _read_charlms(files: CheckpointFiles, config: dict[str, Any], state: dict[str, Tensor]):
    if not (config.get("charlm") and config["char"] and config["char_emb_dim"] > 0):
        return None
    parts = {}
    for module, path in zip(CHARLMS, (files.charlm_forward, files.charlm_backward)):
        option = _option(module)
        if path is None:
            raise UnusableFile(
                f"{files.checkpoint} uses character language models, which are in files of their own: give "
                f"this one as --{option.replace('_', '-')} (in a config: {option})"
            )
        found = _load(path)
        found = found if "state_dict" in found else found.get("model", {})
        if not {"state_dict", "vocab", "args"} <= set(found):
            raise UnusableFile(f"{path} is no character language model of Stanza's")
        if found["is_forward_lm"] != (module == "charmodel_forward"):
            raise UnusableFile(f"{path} reads in the wrong direction for --{option.replace('_', '-')}")
        state |= {f"{module}.{name}": value for name, value in found["state_dict"].items()}
        parts[module] = {name: _plain(found[name]) for name in ("args", "vocab", "pad", "is_forward_lm")}
    return parts


def _option(module: str) -> str:
    """``charmodel_forward`` to ``charlm_forward``."""
    return module.replace("charmodel", "charlm")


def _write_charlms(charlms: dict[str, Any] | None, folder: Path) -> dict[str, Any]:
    """Models with values yet to be loaded; returns the settings that lead to them."""
    from stanza.models.common.char_model import CharacterLanguageModel
    from stanza.models.common.vocab import CharVocab

    paths: dict[str, Any] = dict.fromkeys(CHARLMS.values()) | {"charlm": bool(charlms)}
    for module, parts in (charlms or {}).items():
        if module not in CHARLMS:
            raise UnusableFile(f"{module!r:.80} is no character language model of a Stanza parser")
        vocab = {"char": CharVocab.load_state_dict(parts["vocab"])}
        model = CharacterLanguageModel(parts["args"], vocab, parts["pad"], parts["is_forward_lm"])
        paths[CHARLMS[module]] = str(folder / f"{module}.pt")
        model.save(paths[CHARLMS[module]])
    return paths


def _read_transformer(files: CheckpointFiles, config: dict[str, Any], state: dict[str, Tensor]):
    if not config.get("bert_model"):
        return None
    if not isinstance(config["bert_model"], str):
        raise UnusableFile(f"{files.checkpoint} is damaged: its transformer is {config['bert_model']!r:.80}")
    from stanza.models.common.bert_embedding import load_bert

    name = str(files.transformer or config["bert_model"])
    try:
        model, tokenizer = load_bert(name)
    except OSError as error:
        raise UnusableFile(
            f"{files.checkpoint} uses the transformer {name}, which could not be loaded ({error}). Give a "
            "folder that has it as --transformer (in a config: transformer)"
        ) from error
    saved = any(key.startswith("bert_model.") for key in state)
    if not saved:
        state |= {f"bert_model.{key}": value for key, value in model.float().state_dict().items()}
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files_in = (path for path in sorted(Path(folder).iterdir()) if path.is_file())
        texts = {path.name: path.read_bytes() for path in files_in}
    return {
        "model_type": model.config.model_type,
        "config": _plain(model.config.to_dict()),
        "tokenizer": texts,
        "longest": min(int(tokenizer.model_max_length), 2**31),  # "no limit" is a number too large to store
        "saved": saved,
    }


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """Write files that a saved pipeline holds.

    Args:
        files: their content by their names.
        folder: where to. Raises UnusableFile, before anything is written, for a name that would lead
            elsewhere.
    """
    for path, content in [(folder / bare_name(name), content) for name, content in files.items()]:
        path.write_bytes(content)


def _build_transformer(parts: dict[str, Any] | None) -> tuple[nn.Module | None, Any, bool]:
    """The module, its tokenizer, and whether it belongs to the checkpoint."""
    if parts is None:
        return None, None, False
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    settings = {name: value for name, value in parts["config"].items() if name != "model_type"}
    described = AutoConfig.for_model(parts["model_type"], **settings)
    model = AutoModel.from_config(described, trust_remote_code=False).float()
    with TemporaryDirectory() as folder:
        write_files(parts["tokenizer"], Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer.model_max_length = parts["longest"]
    return model, tokenizer, parts["saved"]
