"""ΔW of adapters on disk, from their factors: adapters of `peft`, and those that a run saves."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bench.api.peft import CONFIG, TENSORS, open_folder
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError
from bench.core.files import regular
from bench.records import record
from bench.records.files import checked
from bench.spectra.delta import Delta

if TYPE_CHECKING:
    from bench.api.method import Method

PART = re.compile(r"(?:base_model\.model\.)?(.+?)\.lora_(?:embedding_)?([ABE])(?:\.default)?(?:\.weight)?")
EMBEDDING = ".lora_embedding_"
FACTOR = re.compile(r"(?:backbone\.)?(.+)\.(factors\.\d+|start_a|start_b|magnitude)")
KINDS = ("LORA", "ADALORA")

PeftConfig = Mapping[str, Any]
"""What adapter_config.json holds."""


def is_folder(path: Path) -> bool:
    """Whether `path` is an adapter directory of peft."""
    return (path / CONFIG).is_file() and (path / TENSORS).is_file()


def deltas_of_folder(path: Path) -> Iterator[tuple[str, Delta]]:
    """Read ΔW of every layer in an adapter directory of peft; raises as `open_folder` and `deltas_of_peft`."""
    return deltas_of_peft(open_folder(path).config, _load(path / TENSORS), str(path))


def deltas_of_peft(config: PeftConfig, tensors: Mapping[str, Tensor], where: str) -> Iterator[tuple[str, Delta]]:
    """Compute ΔW = scale·B·A, or scale·B·diag(E)·A of AdaLoRA, by layer; convolutions and embeddings as matrices.

    Raises:
        UsageError: it is another tuner, or DoRA, whose ΔW depends on the frozen weight.
        EnvironmentProblem: factors are missing.
    """
    kind = str(config.get("peft_type"))
    if kind not in KINDS or config.get("use_dora") or any("lora_magnitude_vector" in key for key in tensors):
        raise UsageError(
            f"{where}: ΔW is not a product of factors",
            f"it is peft's {'DoRA' if kind in KINDS else kind}; known are {' and '.join(KINDS)}",
            "Merge it into its base model, save that, and give both: bench spectra MERGED --base BASE.",
        )
    layers: dict[str, dict[str, Tensor]] = {}
    transposed: set[str] = set()
    for key, tensor in tensors.items():
        if match := PART.fullmatch(key):
            layers.setdefault(match[1], {})[match[2]] = tensor
            transposed |= {match[1]} if EMBEDDING in key else set()
    incomplete = [name for name, parts in layers.items() if not {"A", "B"} <= parts.keys()]
    if incomplete or not layers:
        raise EnvironmentProblem(
            f"{where}: the adapter is not complete",
            f"A or B is missing of {', '.join(incomplete[:3])}" if layers else "no tensor is named lora_A or lora_B",
            "Save it again with peft's save_pretrained.",
        )
    return (pair for name, parts in layers.items() for pair in _deltas(config, name, parts, name in transposed))


def deltas_of_run(file: Path) -> Iterator[tuple[str, Delta]] | None:
    """Read ΔW from the `adapter.safetensors` of a run, or None where it holds no factors.

    The record beside it names the method, whose own translation to peft gives the scale.

    Raises:
        EnvironmentProblem: a file cannot be read, or the adapter is not as its run wrote it.
        UsageError: there are factors, but no record, which is needed for their scale.
    """
    tensors = _load(file)
    layers = list(dict.fromkeys(match[1] for key in tensors if (match := FACTOR.fullmatch(key))))
    if not layers and not any(PART.fullmatch(key) for key in tensors):
        return None
    beside = file.parent / record.FILE
    if not beside.is_file():
        raise UsageError(
            f"{file}: the scale of its factors is not known",
            f"there is no {record.FILE} beside it, which names the method",
            "Give the file in its run's folder, or what `bench export --peft` wrote.",
        )
    run = record.read(beside.resolve())
    checked(run, file.parent, file.name)
    spec = run.spec
    method: type[Method] = registry.load("methods", spec.method)
    # under neutral names, since the translation would join parts of a fused projection
    neutral = {layer: f"layer{i}" for i, layer in enumerate(layers)}
    matches = ((FACTOR.fullmatch(key), tensor) for key, tensor in tensors.items())
    renamed = {f"backbone.{neutral[match[1]]}.{match[2]}": tensor for match, tensor in matches if match}
    config, factors = method.peft(method.Config(**spec.options.method), renamed or tensors)
    deltas = dict(deltas_of_peft(config, factors, str(file)))
    return ((layer, deltas[neutral[layer]]) for layer in layers) if layers else iter(deltas.items())


def start_warning(path: Path) -> str:
    """Return a warning where an adapter, of peft or of a run, belongs to other weights than the model's own, or ''."""
    folder = path if path.is_dir() else path.parent
    options = open_folder(folder).config if is_folder(folder) else record.read(folder / record.FILE).spec.options.method
    start = options.get("init_lora_weights", True)
    if not str(start).lower().startswith(("pissa", "olora", "corda", "loftq")):
        return ""
    return f"init_lora_weights={start}: ΔW is relative to the start that peft prepared, not to the model's weights"


def _deltas(
    config: PeftConfig, name: str, parts: Mapping[str, Tensor], transposed: bool
) -> Iterator[tuple[str, Delta]]:
    """Yield ΔW of a layer, or of every expert, `name[3]`, of a parameter (experts, ·, ·) of `target_parameters`."""
    a, b = parts["A"].flatten(1), parts["B"].flatten(1)
    parameters = _parameters(config, name)
    rank = int(_option(config, parameters, "r", "rank_pattern")) if parameters else len(a)
    if len(a) == rank:
        yield name, _delta(config, name, {**parts, "A": a, "B": b}, transposed)
        return
    experts = len(a) // rank
    for i in range(experts):  # peft keeps A as (experts, r, in) and B as (out, r, experts)
        yield f"{name}[{i}]", _delta(config, name, {"A": a[i * rank : (i + 1) * rank], "B": b[:, i::experts]}, False)


def _parameters(config: PeftConfig, name: str) -> list[str]:
    """List the parameters of `target_parameters` that the module `name` holds; peft nests it to adapt several."""
    plain = name.replace(".base_layer", "")
    targets = (target.rpartition(".") for target in config.get("target_parameters") or ())
    return [f"{plain}.{parameter}" for module, _, parameter in targets if f".{plain}".endswith(f".{module}")]


def _delta(config: PeftConfig, name: str, parts: Mapping[str, Tensor], transposed: bool) -> Delta:
    a, b = parts["A"].double(), parts["B"].double()  # a scale of 3 would round float32
    inner = [parts["E"].flatten().diag().double()] if "E" in parts else []
    factors = (b * _scale(config, name, len(a)), *inner, a)
    if transposed:  # of an embedding (count, width) B is (width, r) and A is (r, count)
        factors = tuple(factor.mT for factor in reversed(factors))
    return Delta(factors=factors, nominal=min(min(factor.shape) for factor in factors))


def _scale(config: PeftConfig, name: str, rank: int) -> float:
    """α/r; α/√r of rsLoRA; α/(r₀ + 1e-5) of AdaLoRA, r₀ from before pruning; with the layer's own α if it has one."""
    if config["peft_type"] == "ADALORA":
        return float(config["lora_alpha"]) / (int(config["init_r"]) + 1e-5)
    if not rank:
        return 0.0
    alpha = _option(config, _parameters(config, name) or [name], "lora_alpha", "alpha_pattern")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _option(config: PeftConfig, names: Sequence[str], key: str, pattern: str) -> float:
    """Return an option of a layer: as the first matching expression of a pattern gives it, else as for all layers.

    Raises:
        UsageError: it differs between the parameters `names` of one module; their tensors do not say whose they are.
    """
    patterns: Mapping[str, float] = config.get(pattern) or {}
    values = {
        float(next((value for expression, value in patterns.items() if _matches(expression, name)), config[key]))
        for name in names
    }
    if len(values) > 1:
        raise UsageError(
            f"{key} differs between {' and '.join(names)}",
            "an adapter of peft does not say which tensors belong to which of them",
            "Merge it into its base model, save that, and give both: bench spectra MERGED --base BASE.",
        )
    return values.pop()


def _matches(expression: str, name: str) -> bool:
    return bool(re.fullmatch(rf"(?:.*\.)?(?:{expression})", name))


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(regular(file))
    except (SafetensorError, OSError) as error:
        raise EnvironmentProblem(f"{file} is not a safetensors file", str(error), "Download it again.") from error
