"""Text encoders as networks: token features of a transformers model, pooled into one vector per example."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, BertConfig, BertModel
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from bench.api.backbone import Backbone, load_tokenizer
from bench.api.dropout import set_config, set_dropout
from bench.api.network import Network, TokenIds
from bench.api.task import TaskSpec
from bench.backbones.seeding import seeded
from bench.backbones.text_encoders import POSITIONS, BERTConfig
from bench.config.sections import HeadConfig
from bench.core.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    pass

logging.set_verbosity_error()
logging.disable_progress_bar()

Pooling = Literal["mean", "cls", "pooler"]


class TextEncoder(Network):
    """Tokens (B, T) → pooled features (B, D).

    Attributes:
        pooling: `mean` over the tokens that are not padding, `cls` the first token, `pooler` the model's own.
    """

    def __init__(self, model: Any, pooling: Pooling, tokenizer: Path) -> None:
        super().__init__()
        self._transposed = _linear_layers(model)
        self._saved = (model,)  # in a tuple, since a decoder is no part of this module
        if model.config.is_encoder_decoder:
            model = model.get_encoder()  # a decoder would have nothing to decode
        model.config.use_cache = False  # nothing is generated token by token
        self.tokenizer = tokenizer
        self.model, self.pooling, self.width = model, pooling, int(model.config.hidden_size)
        if pooling != "pooler" and getattr(model, "pooler", None) is not None:
            model.pooler = nn.Identity()  # not used, so neither counted nor trained; LayoutLM calls it all the same

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Ids and mask (B, T) → (B, D)."""
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        # the model has already run its own pooler, whose output equals that of `pool` to the bit
        return out.pooler_output if self.pooling == "pooler" else self.pool(out.last_hidden_state, attention_mask)

    def hidden(self, **inputs: Tensor) -> Tensor:
        """Ids and mask (B, T) → a feature of every token (B, T, D)."""
        return self.model(**inputs).last_hidden_state

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Token features (B, T, D) → (B, D): `forward` is `pool` of `hidden`."""
        if self.pooling == "pooler":
            return self.model.pooler(hidden)
        if self.pooling == "cls":
            return hidden[:, 0]
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp_min(torch.finfo(hidden.dtype).tiny)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings (vocabulary, E)."""
        return self.model.get_input_embeddings()

    @cached_property
    def tokens(self) -> TokenIds:
        tokenizer = load_tokenizer(str(self.tokenizer))
        return TokenIds(
            mask=cast("int | None", tokenizer.mask_token_id),
            special=tuple(sorted(tokenizer.all_special_ids)),
            # embeddings may be padded to a round number; a tokenizer may have tokens without an embedding
            vocabulary=min(len(tokenizer), self.get_input_embeddings().num_embeddings),
        )

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and pooling as transformers and sentence-transformers do."""
        [model] = self._saved
        state: dict[str, Tensor] = model.state_dict()
        state |= {name: state[name].mT.contiguous() for name in self._transposed}
        model.save_pretrained(folder, state_dict=state)
        # anew, since the one that reads texts would save its last truncation too
        load_tokenizer.__wrapped__(str(self.tokenizer)).save_pretrained(folder)
        if self.pooling != "pooler":
            (folder / "1_Pooling").mkdir(exist_ok=True)
            modes = {f"pooling_mode_{mode}": mode.startswith(self.pooling) for mode in ("cls_token", "mean_tokens")}
            (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def _linear_layers(model: nn.Module) -> list[str]:
    """Put `nn.Linear` in the place of transformers' Conv1D (GPT-2), a linear layer with its weight as (in, out).

    Methods then adapt it as any other. The parameters stay the same objects; returns the names of the weights that are
    transposed now.
    """
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Conv1D)]
    for name, layer in layers:
        linear = nn.Linear(layer.nx, layer.nf, device="meta")
        layer.weight.data = layer.weight.data.mT.contiguous()
        linear.weight, linear.bias = layer.weight, layer.bias
        model.set_submodule(name, linear)
    return [f"{name}.weight" for name, _ in layers]


class BuiltBert(TextEncoder):
    @property
    def blocks(self) -> list[nn.Module]:
        return [*self.model.encoder.layer]


def load_pretrained(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TextEncoder:
    """Load the network of a folder that `save_pretrained` wrote.

    Raises:
        EnvironmentProblem: transformers cannot load it, or the weights lack a tensor that the network uses.
        UsageError: it has no dropout to set.
    """
    assert backbone.path is not None
    try:
        model, info = _from_folder(backbone.path, dropout=backbone.config.dropout)
    except (ImportError, KeyError, OSError, TypeError, ValueError) as error:
        raise _unfit(backbone, f"transformers cannot load it: {(str(error) or repr(error)).splitlines()[0]}") from error
    if mismatched := sorted(info["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise _unfit(backbone, f"{name} is {_shape(stored)} in the weights and {_shape(expected)} by config.json")
    rate = backbone.config.dropout
    if not set_dropout(model, rate) and rate:
        raise UsageError(
            f"backbone.dropout={rate:g} would have no effect",
            f"transformers' {type(model).__name__} has no dropout",
            "Leave it out; head.dropout acts on the pooled features.",
        )
    tensors = model.state_dict(keep_vars=True)
    encoder = TextEncoder(model, _pooling(backbone, head), backbone.path)
    if (reads := encoder.model.main_input_name) != "input_ids":
        raise _unfit(backbone, f"transformers' {type(encoder.model).__name__} reads {reads} and no tokens")
    used = {id(tensor) for tensor in encoder.state_dict(keep_vars=True).values()}
    # what the encoder drops, a pooler that nothing reads, may be missing
    if missing := sorted(name for name in info["missing_keys"] if id(tensors.get(name)) in used):
        raise _unfit(
            backbone, f"it lacks {len(missing)} of {len(used)} tensors of its network: {', '.join(missing[:3])}"
        )
    return encoder


def _from_folder(folder: Path, *, dropout: float) -> tuple[Any, dict[str, Any]]:
    """Load the model and what transformers says of its tensors; those that are missing are random now.

    Nothing outside the folder is read, and no code in it is run.
    """
    own: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    config = AutoConfig.from_pretrained(folder, **own)
    config = getattr(config, "text_config", config)  # of CLIP and others that read texts and images
    set_config(config, dropout)
    # of T5, whose folders may have no decoder, it takes the encoder alone
    auto = AutoModelForTextEncoding if config.model_type in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES else AutoModel
    model, info = auto.from_pretrained(
        folder, config=config, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **own
    )
    return model.float(), info


def _unfit(backbone: Backbone, known: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the weights of backbone '{backbone.name}' do not fit its network",
        f"{backbone.path}: {known}",
        "Download or export it again: AutoModel.from_pretrained(…).save_pretrained(DIR).",
    )


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def load_bert(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> BuiltBert:
    """Build a `BERT` for the vocabulary of its tokenizer; matrices start from N(0, .02²) (arXiv 1810.04805).

    Raises:
        UsageError: the heads do not divide the width.
    """
    config = backbone.config_as(BERTConfig)
    if config.hidden % config.heads:
        raise UsageError(
            f"backbone.heads={config.heads} does not divide backbone.hidden={config.hidden}",
            "every head gets hidden / heads numbers of a token",
            "Change one of them.",
        )
    assert backbone.path is not None
    tokenizer = load_tokenizer(str(backbone.path))
    settings = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate or 4 * config.hidden,
        max_position_embeddings=POSITIONS,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        pad_token_id=cast("int", tokenizer.pad_token_id or 0),
    )
    with seeded(seed, "bert"):
        model = BertModel(settings)
    return BuiltBert(model, _pooling(backbone, head), backbone.path)


def _pooling(backbone: Backbone, head: HeadConfig) -> Pooling:
    return backbone.pooling if head.pooling == "auto" else head.pooling
