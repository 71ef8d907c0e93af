"""The names of methods, tasks, backbones and experiments, and where they live; classes are imported when asked for."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal, NamedTuple

from bench.core.errors import BenchError, EnvironmentProblem, UsageError, did_you_mean

Kind = Literal["methods", "tasks", "backbones", "experiments"]


class Entry(NamedTuple):
    """Where a name lives, as `module:Class`; the module of `config`, its options, imports no torch.

    Without `config` they are the class's own `Config`, for which the class must be imported.
    """

    target: str
    config: str = ""


BUILTIN: dict[Kind, dict[str, Entry]] = {
    "methods": {
        "full": Entry("methods.full.method:Full", "methods.full.config:FullConfig"),
        "linear": Entry("methods.linear.method:Linear", "methods.linear.config:LinearConfig"),
        "bitfit": Entry("methods.bitfit.method:BitFit", "methods.bitfit.config:BitFitConfig"),
        "lora": Entry("methods.lora.method:LoRA", "methods.lora.config:LoRAConfig"),
        "deeplora": Entry("methods.deeplora.method:DeepLoRA", "methods.deeplora.config:DeepLoRAConfig"),
        "adapter": Entry("methods.adapter.method:Adapter", "methods.adapter.config:AdapterConfig"),
        "adapterdrop": Entry("methods.adapterdrop.method:AdapterDrop", "methods.adapterdrop.config:AdapterDropConfig"),
        "adalora": Entry("methods.adalora.method:AdaLoRA", "methods.adalora.config:AdaLoRAConfig"),
        "lowrank": Entry("methods.lowrank.method:LowRankTraining", "methods.lowrank.config:LowRankConfig"),
        "galore": Entry("methods.galore.method:GaLore", "methods.galore.config:GaLoreConfig"),
        "apollo": Entry("methods.apollo.method:APOLLO", "methods.apollo.config:APOLLOConfig"),
        "dropout": Entry("methods.dropout.method:Dropout", "methods.dropout.config:DropoutConfig"),
        "mae": Entry("methods.mae.method:MAE", "methods.mae.config:MAEConfig"),
        "mlm": Entry("methods.mlm.method:MLM", "methods.mlm.config:MLMConfig"),
    },
    "tasks": {
        "glue": Entry("tasks.glue.task:GLUE"),
        "table": Entry("tasks.table.task:Table"),
        "corpus": Entry("tasks.corpus.task:TextCorpus"),
        "synthetic": Entry("tasks.synthetic.task:Synthetic"),
        "digits": Entry("tasks.images.digits:Digits"),
        "mnist": Entry("tasks.images.vision:MNIST"),
        "fashion-mnist": Entry("tasks.images.vision:FashionMNIST"),
        "cifar10": Entry("tasks.images.vision:CIFAR10"),
        "cifar100": Entry("tasks.images.vision:CIFAR100"),
        "vtab": Entry("tasks.images.vtab:VTAB"),
        "images": Entry("tasks.images.own:Images"),
    },
    "backbones": {
        "minilm": Entry("bench.backbones.text_encoders:MiniLM"),
        "hf": Entry("bench.backbones.text_encoders:HuggingFace"),
        "bert": Entry("bench.backbones.text_encoders:BERT"),
        "vit": Entry("bench.backbones.image_networks:ViT"),
        "resnet18": Entry("bench.backbones.image_networks:ResNet18"),
        "vgg11": Entry("bench.backbones.image_networks:VGG11"),
        "mlp": Entry("bench.backbones.mlp:MLP"),
        "dln": Entry("bench.backbones.dln:DLN"),
    },
    "experiments": {
        "parsimony": Entry("bench.experiments.parsimony:Parsimony"),
        "parsimony-compressed": Entry("bench.experiments.parsimony:ParsimonyCompressed"),
        "figure1": Entry("bench.experiments.figure1:Figure1"),
        "optimizers": Entry("bench.experiments.optimizers:Optimizers"),
        "dropout-nuclear": Entry("bench.experiments.dropout_nuclear:DropoutNuclear"),
        "nuclear-norm": Entry("bench.experiments.nuclear_norm:NuclearNorm"),
        "mae-rank": Entry("bench.experiments.masked_pretraining:MAERank"),
        "mlm-rank": Entry("bench.experiments.masked_pretraining:MLMRank"),
        "lora-vs-full": Entry("bench.experiments.lora_vs_full:LoRAVsFull"),
        "deeplora-fewshot": Entry("bench.experiments.deeplora_fewshot:DeepLoRAFewShot"),
        "adalora-allocation": Entry("bench.experiments.adalora_allocation:AdaLoRAAllocation"),
        "rank-advice": Entry("bench.experiments.rank_advice:RankAdvice"),
        "collapse-rank": Entry("bench.experiments.collapse_rank:CollapseRank"),
        "interpretability": Entry("bench.experiments.interpretability:Interpretability"),
    },
}
PREFIXES: dict[Kind, dict[str, Entry]] = {
    "methods": {"peft:": Entry("methods.peft_tuner.method:PeftTuner", "methods.peft_tuner.config:PeftTunerConfig")},
    "backbones": {"timm:": Entry("bench.backbones.image_networks:Timm"), "runs:": Entry("bench.backbones.runs:Run")},
}
"""Prefix of names → the class that opens them, or makes one by `of(NAME)`: `peft:vera`, `runs:ID`."""


@cache
def entries(kind: Kind) -> dict[str, Entry]:
    """Return the built-in names and those of installed packages, which cannot replace a built-in one.

    The entry point `lowrank_bench.configs` of the same name as a method's gives its Config in a module without torch.
    """
    points = entry_points()  # once, since each call opens a file of every installed package
    of_configs = points.select(group="lowrank_bench.configs") if kind == "methods" else ()
    configs = {point.name: point.value for point in of_configs}
    of_kind = points.select(group=f"lowrank_bench.{kind}")
    installed = {point.name: Entry(point.value, configs.get(point.name, "")) for point in of_kind}
    return {**installed, **BUILTIN[kind]}


def family(task: str) -> str:
    """Return the registered name in `glue`, `glue/rte`, `table:FILE`."""
    return task.partition(":")[0].partition("/")[0]


def opener(backbone: str) -> str:
    """Return the registered name that opens a backbone: its own, its prefix, or `hf` for folders and hub ids."""
    return _prefix("backbones", backbone) or (backbone if backbone in entries("backbones") else "hf")


def find(kind: Kind, name: str) -> Entry:
    """Return the entry of a name, or of its prefix.

    Raises:
        UsageError: the name is not known; the error lists those that are, and the nearest.
    """
    known, prefixes = entries(kind), PREFIXES.get(kind, {})
    if name in known:
        return known[name]
    if prefix := _prefix(kind, name):
        return prefixes[prefix]
    listing = "bench reproduce --list" if kind == "experiments" else f"bench list {kind}"
    raise UsageError(
        f"unknown {kind[:-1]} '{name}'",
        f"known {kind}: {', '.join([*sorted(known), *(f'{prefix}…' for prefix in prefixes)])}",
        f"{did_you_mean(name, known)} `{listing}` describes them.".strip(),
    )


def load(kind: Kind, name: str) -> Any:
    """Import the class of a name; of a method it imports torch.

    Raises:
        UsageError: the name is not known.
        EnvironmentProblem: its module cannot be imported.
    """
    return _imported(kind, name, find(kind, name).target)


def load_config(kind: Kind, name: str) -> type[Any]:
    """Import the options class of a name, without torch where its entry names one; raises as `load` does."""
    config = find(kind, name).config
    return _imported(kind, name, config) if config else load(kind, name).Config


def known(kind: Kind, name: str) -> bool:
    """Tell whether a name is registered, or begins with a prefix."""
    return name in entries(kind) or bool(_prefix(kind, name))


def _imported(kind: Kind, name: str, target: str) -> Any:
    try:
        imported = import_target(target)
    except BenchError:
        raise
    except Exception as error:  # the code of a third party may be wrong in any way
        raise EnvironmentProblem(
            f"{kind[:-1]} '{name}' cannot be imported",
            f"{target}: {type(error).__name__}: {error}",
            f"Fix that module or the installation, or leave the {kind[:-1]} out.",
        ) from error
    prefix = _prefix(kind, name)
    return imported.of(name.removeprefix(prefix)) if prefix and hasattr(imported, "of") else imported


def import_target(target: str) -> Any:
    """Import what `module:name` names."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _prefix(kind: Kind, name: str) -> str:
    return next((prefix for prefix in PREFIXES.get(kind, ()) if name.startswith(prefix)), "")
