"""peft tuners: every tuner of the installed `peft` that adapts layers, such as VeRA, IA³, OFT and LoHa."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

from bench.config.options import Choice, Value, alternatives, option, show
from bench.config.sections import MethodConfig
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean

Classes = tuple[type[Any], type[Any]]
"""peft's configuration and model class of a tuner."""
Field = tuple[str, object, object]
"""Name, type and default of a field, as `make_dataclass` takes it."""
PREFIX = "peft:"
UNSUPPORTED = {
    "adalora": "its ranks are allocated by calls from the training loop: --method adalora makes them",
    "adaption_prompt": "it is for decoders alone",
    "poly": "it needs a task for every example",
    "shadow": "it is for generation",
    "trainable_tokens": "it trains token embeddings, not layers",
    "xlora": "it mixes existing adapters",
}
"""Tuners that do not adapt the layers of an encoder by themselves, and why; nor do those that learn prompts."""
UNSUPPORTED_VALUES: dict[str, dict[tuple[str, Value], str]] = {
    "adamss": {("use_asa", True): "its masks are chosen by calls from the training loop"},
    "lora": {
        ("init_lora_weights", "corda"): "it starts from covariances, which a call of peft measures on many batches",
        ("init_lora_weights", "eva"): "it starts from activations, which a call of peft measures on many batches",
        ("init_lora_weights", "lora_ga"): "it starts from gradients, which a call of peft measures on many batches",
        ("use_qalora", True): "it is for quantised layers",
    },
}
"""Option and value of a tuner that do nothing here, or not what they say, and why."""
LEFT_OUT = {
    *("target_modules", "target_parameters", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "fan_in_fan_out", "megatron_core"),
}
"""Fields that `target` and the head replace, and fields for layers that an encoder does not have."""
NORMS = r"(?i)(layer_?norm|norm\d?)$"
SECOND_LAYER = (
    r"((?<!attention\.)\boutput\.dense|\bmlp\.(Wo|c_proj)|(?<!\bse\.)\b(fc2|lin2|linear_?2|ffn_output|down_proj|wo))$"
)
"""Names in transformers and timm of a feed-forward part's second matrix, whose input IA³ scales; `se.fc2` weighs
channels (squeeze and excitation)."""
FUSED_LAYER = r"\b(W?qkv|c_attn|in_proj)$"
"""Their names of query, key and value in one layer."""
KEY_VALUE = r"\b(key|value|[kv]|kv)(_proj|_lin|_head)?$"
TARGETS = {"ia3": f"{KEY_VALUE}|{FUSED_LAYER}|{SECOND_LAYER}", "ln_tuning": NORMS}
"""Default of `target` for tuners that have one of their own. IA³'s is the paper's (arXiv 2205.05638, section 3.3)."""
TARGET_HELP = (
    "Layers to adapt: qv, attention, all-linear, convolutions, all, or a regular expression searched in their "
    "names; qv means all in a network without attention."
)


@dataclass(frozen=True, kw_only=True)
class PeftTunerConfig(MethodConfig):
    """Adapts the target layers W by a tuner of peft, such as VeRA's W + Λ_b·B·Λ_d·A, IA³'s gains or OFT's rotations.

    peft itself computes, starts and merges the tuner. Where peft can merge it, ΔW = W' − W in float64, from
    the pretrained W, also where peft changes W at the start (PiSSA, OLoRA).
    Trains: what peft marks as trained, and the head.
    Parameters: as counted by peft, plus head.
    """

    learning_rate: ClassVar[float] = 3e-3
    learning_rates: ClassVar[tuple[float, ...]] = (1e-3, 3e-3, 1e-2)
    tuner: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    """First paragraph of the docstring that peft gives the tuner."""

    target: str = option("qv", TARGET_HELP)

    def __post_init__(self) -> None:
        """Refuse values of peft's options that need more than the layers."""
        super().__post_init__()
        for (name, value), why in UNSUPPORTED_VALUES.get(self.tuner, {}).items():
            if getattr(self, name, None) == value:
                raise UsageError(
                    f"{self.full_name(name)}={show(value)} does not work with {PREFIX}{self.tuner}",
                    why,
                    f"Leave it out, or choose another value: `bench show {PREFIX}{self.tuner}`.",
                )

    @classmethod
    @cache
    def of(cls, tuner: str) -> type[PeftTunerConfig]:
        """Return the options of one tuner, from peft's own configuration class; imports peft.

        Raises:
            UsageError: there is no such tuner, or it cannot run here; the error lists those that can.
            EnvironmentProblem: peft is not installed.
        """
        known = tuners()
        if tuner not in known:
            why = f"{UNSUPPORTED[tuner]}\n" if tuner in UNSUPPORTED else ""
            raise UsageError(
                f"{'no' if why else 'unknown'} method '{PREFIX}{tuner}'",
                f"{why}tuners of the installed peft that adapt layers: {', '.join(sorted(known))}",
                did_you_mean(tuner, known) or "Write for example --method peft:vera.",
            )
        config, model = known[tuner]
        target: list[Field] = [("target", str, option(TARGETS[tuner], TARGET_HELP))] if tuner in TARGETS else []
        config_class = dataclasses.make_dataclass(
            f"{config.__name__}Options", [*target, *_fields(config)], bases=(cls,), frozen=True, kw_only=True
        )
        config_class.tuner, config_class.__doc__ = tuner, cls.__doc__
        config_class.summary = " ".join((model.__doc__ or "").partition("\n\n")[0].split())
        return config_class


@cache
def tuners() -> dict[str, Classes]:
    """Return the tuners that run here, name → peft's configuration and model class; imports peft.

    Raises:
        EnvironmentProblem: peft is not installed.
    """
    try:
        from peft import PromptLearningConfig
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
    except ImportError as error:
        todo = 'Run: pip install "lowrank-bench[peft]".'
        raise EnvironmentProblem("peft is not installed", "methods named peft:TUNER are its tuners", todo) from error
    return {
        kind.value.lower(): (config, PEFT_TYPE_TO_TUNER_MAPPING[kind])
        for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if kind in PEFT_TYPE_TO_TUNER_MAPPING
        and kind.value.lower() not in UNSUPPORTED
        and not issubclass(config, PromptLearningConfig)
    }


def _fields(config: type) -> list[Field]:
    """Return the fields that a single value can set, as `make_dataclass` takes them, without those of every tuner."""
    from peft import PeftConfig

    left_out = LEFT_OUT | {field.name for field in dataclasses.fields(PeftConfig)}
    settable: list[Field] = []
    for field in dataclasses.fields(config):
        hint = None if field.name in left_out else _settable_type(config, field.name, field.type)
        if hint is not None and isinstance(field.default, str | int | float | bool | None):
            described = str(field.metadata.get("help", ""))
            declared = option(field.default, described, scales_parameters=field.name == "r")
            settable.append((field.name, hint, declared))
    return settable


def _settable_type(config: type, name: str, hint: object) -> object:
    """Return the part of a field's type that a single value can have; None where there is none."""
    if isinstance(hint, str):
        owner = next(base for base in config.__mro__ if name in inspect.get_annotations(base))
        try:
            hint = eval(hint, vars(sys.modules[owner.__module__]))  # an annotation of the installed peft
        except NameError:  # of a name that peft imports for type checkers alone
            return None
    kinds = [kind for kind in alternatives(hint) if isinstance(kind, Choice) or kind in (str, int, float, bool, None)]
    if not any(kind is not None for kind in kinds):
        return None
    return typing.Union[tuple(Literal[kind.value] if isinstance(kind, Choice) else kind for kind in kinds)]  # noqa: UP007
