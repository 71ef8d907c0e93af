"""Runs on texts as folders that transformers and peft load."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from bench.api.backbone import load_tokenizer
from bench.api.peft import HEAD, PeftAdapter, fill_folder
from bench.backbones.text_network import TextEncoder
from bench.core import registry
from bench.core.errors import UsageError
from bench.deploy import loaders
from bench.deploy.loaders import Loader
from bench.deploy.restore import FinishedRun

if TYPE_CHECKING:
    from bench.deploy.export import Write

MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
"""What the embedded network is called on the hub."""


class Head(NamedTuple):
    """Weight (outputs, D) and bias (outputs,) on pooled features; of a number, on the user's scale."""

    weight: Tensor
    bias: Tensor

    def save(self, folder: Path) -> None:
        save_file({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}, folder / HEAD)


def base_name(run: FinishedRun) -> str:
    """Return where others find the backbone: a hub id, or else the folder on this machine."""
    if run.backbone_name == "minilm":
        return MINILM_ID
    path = run.backbone.path
    local = path is None or Path(run.backbone_name).expanduser().is_dir() or ":" in run.backbone_name
    return str(path) if local and path else run.backbone_name


def merged(run: FinishedRun, network: TextEncoder, head: Head) -> Iterator[Write]:
    """Yield the ways to write a whole network, the plainest first."""

    def whole(folder: Path) -> Loader | None:
        model = as_classifier(run, network, head)
        if model is None:
            return None
        model.save_pretrained(folder)
        save_tokenizer(run, folder)
        code = loaders.classifier(peft=False, labels=run.labels)
        architecture = type(model).__name__
        return Loader(code=code, base="", local="", library="transformers", architecture=architecture)

    def with_head(folder: Path) -> Loader:
        network.save(folder)
        save_tokenizer(run, folder)
        head.save(folder)
        code = loaders.encoder(_auto(network), pooling=run.pooling, kind="merged", part=_part(network))
        return Loader(code=code, base="", local="", library="transformers")

    yield whole
    yield with_head


def peft(run: FinishedRun, tensors: dict[str, Tensor], head: Head, base: str) -> Iterator[Write]:
    """Yield the ways to write an adapter of peft, the plainest first.

    Raises:
        UsageError: peft has no equivalent of the method.
    """
    kind, config = registry.load("methods", run.spec.method), run.spec.options.method
    plain: PeftAdapter = kind.peft(config, tensors)
    local = str(run.backbone.path)
    network = cast(TextEncoder, run.backbone.load(task=run.task, head=run.spec.options.head, seed=run.spec.seed))

    def whole(folder: Path) -> Loader | None:
        model = as_classifier(run, network, head)
        if model is None or not run.backbone.pretrained:
            return None
        prefix = model.base_model_prefix
        inside = {_within(key, prefix): tensor for key, tensor in tensors.items()}
        found: PeftAdapter = kind.peft(config, inside)
        classifying = {n: m for n, m in model.named_children() if n != prefix and [*m.parameters()]}
        for name, module in classifying.items():
            stored = {f"base_model.model.{name}.{key}": tensor for key, tensor in module.state_dict().items()}
            found.tensors.update(stored)
        more = {"task_type": "SEQ_CLS", "modules_to_save": sorted(classifying), **_place(run, local)}
        fill_folder(folder, {**found.config, **more}, found.tensors, {}, {})
        save_tokenizer(run, folder)
        code = loaders.classifier(peft=True, labels=run.labels)
        return Loader(code=code, base=base, local=local, library="peft", architecture=type(model).__name__)

    def with_head(folder: Path) -> Loader | None:
        place = _place(run, local) if run.backbone.pretrained else {}
        fill_folder(folder, {**plain.config, **place}, plain.tensors, head._asdict(), {})
        save_tokenizer(run, folder)
        if not run.backbone.pretrained:
            return Loader(code="", base="", local="", library="peft")
        code = loaders.encoder(_auto(network), pooling=run.pooling, kind="peft", part=_part(network))
        return Loader(code=code, base=base, local=local, library="peft")

    yield whole
    yield with_head


def bottlenecks(run: FinishedRun, network: TextEncoder, tensors: dict[str, Tensor], head: Head, base: str) -> Write:
    """Return the way to write bottleneck adapters, which only these lines load."""

    def with_head(folder: Path) -> Loader:
        save_bottlenecks(tensors, folder)
        save_tokenizer(run, folder)
        head.save(folder)
        activation = str(getattr(run.spec.options.method, "activation"))  # noqa: B009 - not of every method
        code = loaders.encoder(
            _auto(network),
            pooling=run.pooling,
            kind="adapter",
            part=_part(network),
            activation=activation,
        )
        return Loader(code=code, base=base, local=str(run.backbone.path), library="transformers")

    return with_head


def save_bottlenecks(tensors: dict[str, Tensor], folder: Path) -> None:
    """Write `BLOCK.down.weight` and so on, by the names that blocks have in the bare network."""
    inside = {key: tensor for key, tensor in tensors.items() if ".adapter." in key}
    named = {key.removeprefix("backbone.model.").replace(".adapter.", "."): t for key, t in inside.items()}
    save_file({key: tensor.contiguous() for key, tensor in named.items()}, folder / "adapter.safetensors")


def as_classifier(run: FinishedRun, network: TextEncoder, head: Head) -> Any:
    """Return transformers' own model for classification with this encoder and head, where it may compute the same.

    It does where the class applies one linear layer to pooled features (BERT), or a layer that is just like the pooler
    before that (RoBERTa). Whether its outputs are the run's is for the caller to check. None where it cannot be.
    """
    encoder = network.model
    config = copy.deepcopy(encoder.config)
    outputs = run.task.num_classes or 1
    kind = "multi_label_classification" if run.task.multilabel else "single_label_classification"
    config.num_labels = outputs
    config.id2label = dict(enumerate(run.labels or ("value",)))
    config.label2id = {label: number for number, label in config.id2label.items()}
    config.problem_type = kind if run.labels else "regression"
    try:
        model: Any = AutoModelForSequenceClassification.from_config(config)
    except (ValueError, TypeError, KeyError):
        return None
    prefix = model.base_model_prefix
    inside = getattr(model, prefix, None)
    if inside is None or type(inside) is not type(encoder) or run.pooling != "pooler":
        return None
    inside.load_state_dict(encoder.state_dict(), strict=False)
    layers = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and not n.startswith(f"{prefix}.")]
    *before, last = layers
    pooler = [module for module in encoder.pooler.modules() if isinstance(module, nn.Linear)]
    if len(before) > 1 or last.weight.shape != head.weight.shape or (before and len(pooler) != 1):
        return None
    if before:
        before[0].load_state_dict(pooler[0].state_dict())
    last.load_state_dict(head._asdict())
    return model.eval()


def save_tokenizer(run: FinishedRun, folder: Path) -> None:
    """Write the tokenizer so that `truncation=True, padding=True` does what the run did."""
    tokenizer: Any = load_tokenizer.__wrapped__(str(run.backbone.path))
    tokenizer.model_max_length = run.spec.options.task.to_json()["max_length"]
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.save_pretrained(folder)


def check_modality(run: FinishedRun) -> None:
    """Raise UsageError for a network of vectors, which no other library has."""
    if run.task.modality == "vector":
        known = f"{run.backbone.name} is a network of lowrank-bench alone"
        raise UsageError(f"run {run.record.run_id} reads vectors", known, "`bench show RUN` has its results.")


def _place(run: FinishedRun, local: str) -> dict[str, object]:
    return {"base_model_name_or_path": local}


def _within(key: str, prefix: str) -> str:
    """Return a tensor's name in a model that holds the encoder as `prefix`, peft's own wrapper left outside."""
    place = "backbone.model."
    if key.startswith(f"{place}base_model."):  # peft's wrapper also has tensors that all layers share
        place += "base_model.model."
    return f"{place}{prefix}.{key.removeprefix(place)}" if key.startswith(place) else key


def _auto(network: TextEncoder) -> str:
    """Return the class that loads the encoder: of T5, whose folders may have no decoder, it takes that alone."""
    known = MODEL_MAPPING_NAMES.get(network.model.config.model_type)
    return "AutoModelForTextEncoding" if "Encoder" in type(network.model).__name__ != known else "AutoModel"


def _part(network: TextEncoder) -> str:
    has_decoder = network.model.config.is_encoder_decoder and _auto(network) == "AutoModel"
    return ".get_encoder()" if has_decoder else ""
