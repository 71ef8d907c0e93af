"""BERT of any size, for texts; random at the start."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from bench.api.backbone import Backbone, built
from bench.backbones.folder import TEXT_FILES
from bench.backbones.minilm import package
from bench.config.options import option
from bench.config.sections import BackboneConfig
from bench.core.errors import EnvironmentProblem
from bench.core.files import sha256


@dataclass(frozen=True, kw_only=True)
class BERTConfig(BackboneConfig):
    """Size and vocabulary."""

    layers: int = option(4, "Number of transformer layers.", at_least=1)
    hidden: int = option(256, "Numbers per token.", at_least=1)
    heads: int = option(4, "Attention heads; they must divide `hidden`.", at_least=1)
    intermediate: int = option(
        0,
        "Neurons between the two matrices of a feed-forward part; 0 takes four times `hidden`.",
        at_least=0,
    )
    tokenizer: str = option(
        "",
        "Folder of a tokenizer in the layout of save_pretrained; empty takes the embedded MiniLM's.",
    )


class BERT:
    """transformers' BertModel (arXiv 1810.04805) with weights from N(0, .02²), pooled by the mean over the tokens.

    Its vocabulary is that of a tokenizer: the embedded MiniLM's (30,522 word pieces, uncased), or one of yours.
    """

    Config = BERTConfig

    def open(self, name: str, config: BERTConfig) -> Backbone:
        """Find and hash its tokenizer; the content of that decides the identity, and not where it lies.

        Raises:
            EnvironmentProblem: the folder holds no tokenizer, or the embedded one is not installed.
        """
        folder = Path(config.tokenizer).expanduser() if config.tokenizer else package(name) / "model"
        files = sorted(file for pattern in TEXT_FILES[1:] for file in folder.glob(pattern))
        if not files:
            raise EnvironmentProblem(
                f"backbone '{name}' has no tokenizer",
                f"{folder.resolve()} holds none of {', '.join(TEXT_FILES[1:])}",
                "Give a folder that tokenizer.save_pretrained(DIR) wrote, or leave backbone.tokenizer out.",
            )
        found = built(name, replace(config, tokenizer=""), "bench.backbones.bert_net:load", "text")
        digest = hashlib.sha256(found.weights_hash.encode())
        for file in files:
            digest.update(f"{file.name}\x00{sha256(file)}\x00".encode())
        return replace(found, path=folder.resolve(), weights_hash=digest.hexdigest())
