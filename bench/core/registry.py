"""Names of methods, tasks, backbones and experiments, and where they live; nothing is imported unasked."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.core.errors import UsageError, did_you_mean

Kind = Literal["methods", "tasks", "backbones", "experiments"]

BUILTIN: dict[Kind, dict[str, str]] = {
    "methods": {
        "full": "methods.full.method:Full",
        "linear": "methods.linear.method:Linear",
        "bitfit": "methods.bitfit.method:BitFit",
        "lora": "methods.lora.method:LoRA",
        "deeplora": "methods.deeplora.method:DeepLoRA",
        "adapter": "methods.adapter.method:Adapter",
        "adapterdrop": "methods.adapterdrop.method:AdapterDrop",
        "adalora": "methods.adalora.method:AdaLoRA",
        "lowrank": "methods.lowrank.method:LowRankTraining",
        "galore": "methods.galore.method:GaLore",
        "apollo": "methods.apollo.method:APOLLO",
        "dropout": "methods.dropout.method:Dropout",
        "mae": "methods.mae.method:MAE",
        "mlm": "methods.mlm.method:MLM",
    },
    "tasks": {
        "glue": "tasks.glue.task:GLUE",
        "table": "tasks.table.task:Table",
        "corpus": "tasks.corpus.task:TextCorpus",
        "synthetic": "tasks.synthetic.task:Synthetic",
        "digits": "tasks.images.digits:Digits",
        "mnist": "tasks.images.vision:MNIST",
        "fashion-mnist": "tasks.images.vision:FashionMNIST",
        "cifar10": "tasks.images.vision:CIFAR10",
        "cifar100": "tasks.images.vision:CIFAR100",
        "vtab": "tasks.images.vtab:VTAB",
        "images": "tasks.images.own:Images",
    },
    "backbones": {
        "minilm": "bench.backbones.minilm:MiniLM",
        "hf": "bench.backbones.huggingface:HuggingFace",
        "bert": "bench.backbones.bert:BERT",
        "vit": "bench.backbones.vit:ViT",
        "resnet18": "bench.backbones.resnet18:ResNet18",
        "vgg11": "bench.backbones.vgg11:VGG11",
        "mlp": "bench.backbones.mlp:MLP",
        "dln": "bench.backbones.dln:DLN",
    },
    "experiments": {
        "parsimony": "bench.experiments.parsimony:Parsimony",
        "parsimony-compressed": "bench.experiments.parsimony_compressed:ParsimonyCompressed",
        "figure1": "bench.experiments.figure1:Figure1",
        "optimizers": "bench.experiments.optimizers:Optimizers",
        "dropout-nuclear": "bench.experiments.dropout_nuclear:DropoutNuclear",
        "nuclear-norm": "bench.experiments.nuclear_norm:NuclearNorm",
        "mae-rank": "bench.experiments.mae_rank:MAERank",
        "mlm-rank": "bench.experiments.mlm_rank:MLMRank",
        "lora-vs-full": "bench.experiments.lora_vs_full:LoRAVsFull",
        "deeplora-fewshot": "bench.experiments.deeplora_fewshot:DeepLoRAFewShot",
        "adalora-allocation": "bench.experiments.adalora_allocation:AdaLoRAAllocation",
        "collapse-rank": "bench.experiments.collapse_rank:CollapseRank",
        "interpretability": "bench.experiments.interpretability:Interpretability",
    },
}
PREFIXES: dict[Kind, dict[str, str]] = {
    "methods": {"peft:": "methods.peft_tuner.method:Bridge"},
    "backbones": {"timm:": "bench.backbones.timm_model:Timm", "runs:": "bench.backbones.runs:Run"},
}
"""Beginning of names → the class of what follows, or that makes one: `peft:vera`, `runs:1f3a9c…`."""


_LISTS = {"experiments": "bench reproduce --list"}
"""Commands that list a kind, where `bench list` does not."""


@cache
def entries(kind: Kind) -> dict[str, str]:
    """Name → `module:Class`: the built-in ones, then those of installed packages (`lowrank_bench.<kind>`)."""
    return {**_installed(f"lowrank_bench.{kind}"), **BUILTIN[kind]}


def _installed(group: str) -> dict[str, str]:
    """Entry points of a group, read from the packages' own files.

    `importlib.metadata` gives the same and takes 80 ms for it: more than all else that `bench list` does.
    """
    found: dict[str, str] = {}
    for folder in dict.fromkeys(sys.path):
        for file in sorted(Path(folder or ".").glob("*-info/entry_points.txt")):
            text = file.read_text(encoding="utf-8", errors="replace")
            if f"[{group}]" in text:
                found = {**_section(text, group), **found}  # the first on the path wins, as in imports
    return found


def _section(text: str, group: str) -> dict[str, str]:
    from configparser import ConfigParser, Error

    parser = ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment]
    try:
        parser.read_string(text)
    except Error:  # not a package of ours to mend; its names are then unknown
        return {}
    return {name: value.partition("[")[0].strip() for name, value in parser.items(group)}


def family(task: str) -> str:
    """The registered name in `glue`, `glue/rte`, `table:FILE`."""
    return task.partition(":")[0].partition("/")[0]


def opener(backbone: str) -> str:
    """The registered name that opens a backbone: its own, its prefix (`runs:`), or `hf` for folders and hub ids."""
    return _prefix("backbones", backbone) or (backbone if backbone in entries("backbones") else "hf")


def where(kind: Kind, name: str) -> str:
    """`module:Class` of a name.

    Raises:
        UsageError: the name is not known; the error lists those that are and the nearest.
        EnvironmentProblem: it is one of peft's tuners, and peft is not installed.
    """
    known = entries(kind)
    if prefix := _prefix(kind, name):
        if kind == "methods":
            from bench.config.peft_options import tuner

            tuner(name.removeprefix(prefix))
        return PREFIXES[kind][prefix]
    if name not in known:
        hint = did_you_mean(name, known)
        raise UsageError(
            f"unknown {kind[:-1]} '{name}'",
            f"known {kind}: {', '.join([*sorted(known), *(f'{prefix}…' for prefix in PREFIXES.get(kind, ()))])}",
            f"{hint} `{_LISTS.get(kind, f'bench list {kind}')}` describes them.".strip(),
        )
    return known[name]


def load(kind: Kind, name: str) -> Any:
    """The class itself; imports its module."""
    module, _, attribute = where(kind, name).partition(":")
    found = getattr(importlib.import_module(module), attribute)
    prefix = _prefix(kind, name)
    return found.of(name.removeprefix(prefix)) if prefix and kind == "methods" else found


def known(kind: Kind, name: str) -> bool:
    """Whether the name is registered, or begins with a prefix, whose own names `where` knows."""
    return name in entries(kind) or bool(_prefix(kind, name))


def _prefix(kind: Kind, name: str) -> str:
    return next((prefix for prefix in PREFIXES.get(kind, ()) if name.startswith(prefix)), "")
