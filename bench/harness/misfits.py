"""What does not go together in a plan: options, methods, backbones, tasks and budgets."""

from __future__ import annotations

import math

from bench.api.backbone import Backbone
from bench.config.options import scaling_option
from bench.config.overrides import Configs
from bench.config.sections import AllocationConfig, Sections
from bench.core import registry
from bench.core.errors import BenchError, UsageError
from bench.harness.inputs import LoadedTask
from bench.harness.request import Request
from bench.records.spec import RunSpec

MOST_EVALUATIONS = 10_000
"""A record with more of them would be too large to write (`bench.records.record.MOST_BYTES`)."""


def check_allocation(configs: Configs) -> None:
    """Refuse an allocation that no method uses, or that an adapter to start from decides.

    A method without a rank per layer runs as it always does, beside others that have one.
    """
    candidates = configs.overrides.candidates("allocation", AllocationConfig).get("allocation.policy", ())
    policies = (configs.sections.allocation.policy, *candidates)
    policy = next((policy for policy in policies if policy != AllocationConfig().policy), None)
    if policy is None:
        return
    able = [name for name, config in configs.methods.items() if config.allocates]
    if not able:
        every = [n for n in registry.entries("methods") if registry.load_config("methods", n).allocates]
        raise UsageError(
            f"allocation.policy={policy}: {', '.join(configs.methods)} has no rank to share out between layers",
            f"methods that have: {', '.join(sorted(every))}",
            "Leave it out, or choose one of these.",
        )
    for name in able:
        if getattr(configs.methods[name], "start", None):
            raise UsageError(
                f"allocation.policy={policy} with method.start",
                f"every layer of {name} has the rank that the adapter gives it",
                "Leave one of the two out.",
            )


def check_evaluations(request: Request) -> None:
    """Refuse two answers to when dev is evaluated: `--evaluate` takes the place of a method's own evaluations."""
    if request.evaluate is not None and request.overrides.has("method", "evaluations"):
        raise UsageError(
            f"--evaluate {request.evaluate} with --set method.evaluations",
            "both say when dev is evaluated during training",
            "Leave one of the two out.",
        )


def check_match(request: Request) -> None:
    """Refuse to choose an option by a selection that `--match-params` computes."""
    if not (other := request.match_params):
        return
    scaling = {scaling_option(registry.load_config("methods", name)) for name in request.methods if name != other}
    if chosen := [key for space, key in request.overrides.selected if space == "method" and key in scaling]:
        raise UsageError(
            f"--select method.{chosen[0]} with --match-params {other}",
            f"the parameters of {other} decide it",
            "Leave one of the two out.",
        )


def check_strategy(request: Request, sections: Sections) -> None:
    """Refuse a strategy for one device, and sharded weights where something reads whole ones."""
    runtime = sections.runtime
    if runtime.strategy == "auto":
        return
    if request.devices * runtime.nodes == 1:
        raise UsageError(
            f"--strategy {runtime.strategy} with one device",
            "it says how several devices share a run",
            "Leave it out, or give --devices or --nodes.",
        )
    reads = {
        "--set penalty.of=weight": sections.penalty.of == "weight",
        f"--set spectra.of={sections.spectra.of}": "weights" in sections.spectra.names,
    }
    if runtime.strategy == "fsdp" and (whole := [option for option, there in reads.items() if there]):
        raise UsageError(
            f"{whole[0]} with --strategy fsdp",
            "it reads whole weights, and each device has a shard of the frozen ones",
            "Leave the option out, or use --strategy ddp.",
        )


def why_not(spec: RunSpec, backbone: Backbone, loaded: LoadedTask) -> BenchError | None:
    """Why a method, a head, a backbone, a task and a budget do not go together; None if they do."""
    task, examples = loaded.task.spec, len(loaded.dataset.train)
    method, config = spec.method, spec.options.method
    if task.modality not in backbone.modalities or task.modality not in config.needs:
        return BenchError(
            f"{method} on {task.name} with {backbone.name} does not fit",
            f"the task is {task.modality}, the backbone reads {' and '.join(backbone.modalities)}, "
            f"{method} works on {' and '.join(sorted(config.needs))}",
            f"`bench show {method}` says what it works on; `bench list backbones` what reads {task.modality}.",
        )
    length = getattr(loaded.request.config, "max_length", None)
    if task.modality == "text" and length and backbone.max_length and length > backbone.max_length:
        return UsageError(
            f"task.max_length={length} is more than {backbone.name} reads",
            f"it has positions for {backbone.max_length} tokens",
            f"Use --set task.max_length={backbone.max_length}, or less.",
        )
    if spec.options.runtime.strategy == "fsdp" and not config.freezes:
        return UsageError(
            f"{method} with --strategy fsdp has nothing to shard",
            "fsdp shards the weights that a method leaves as they are, and it trains all of them",
            "Use --strategy ddp.",
        )
    if config.supervised and not task.labelled:
        return BenchError(
            f"{method} on {task.name} does not fit",
            "the task has no labels, and the method learns from labels",
            "Choose a method such as mlm.",
        )
    if task.balanced and not config.supervised:
        return UsageError(
            f"{method} on {task.name} cannot use task.class_weights=balanced",
            f"class weights belong to the loss of the labels, and {method} has a loss without them",
            "Leave the option out, or choose a method that learns from labels.",
        )
    if spec.options.head.loss == "squared" and (task.balanced or task.multilabel):
        option = "task.class_weights=balanced" if task.balanced else "task.kind=multilabel"
        return UsageError(
            f"head.loss=squared does not go with {option}",
            f"on {task.name} it needs the cross-entropy",
            "Leave one of the two out.",
        )
    if spec.train_samples is not None and spec.train_samples > examples:
        return UsageError(
            f"--train-samples {spec.train_samples}: {task.name} has {examples} training examples",
            "samples are drawn without replacement",
            "Ask for fewer, or leave the option out to train on all.",
        )
    return _course_misfit(spec, spec.train_samples or examples)


def _course_misfit(spec: RunSpec, examples: int) -> UsageError | None:
    """Why a run on so many training examples cannot be evaluated as `--evaluate` says; None if it can."""
    if spec.evaluate is None:
        return None
    steps = spec.steps(examples)
    every = math.ceil(examples / spec.batch_size) if spec.evaluate == "epoch" else spec.evaluate
    if every > steps and spec.evaluate != "epoch":
        return UsageError(
            f"--evaluate {every} is more than the run has steps",
            f"{steps} steps on {spec.task}",
            f"Give {steps} or less, or leave it out: dev is scored after the last step anyway.",
        )
    if (count := math.ceil(steps / every)) > MOST_EVALUATIONS:
        return UsageError(
            f"--evaluate {spec.evaluate} scores dev {count:,} times on {spec.task}",
            f"the record of a run holds {MOST_EVALUATIONS:,} evaluations",
            f"Give {math.ceil(steps / MOST_EVALUATIONS)} steps or more.",
        )
    return None
