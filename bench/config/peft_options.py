"""Tuners of the installed `peft` and their options, read from its source: neither peft nor torch is imported."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench.config.help import Option
from bench.config.overrides import atoms
from bench.config.source import Class, Module, Value, evaluate, load, locate, written_out
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean

PREFIX = "peft:"
ELSEWHERE = {
    "adalora": "its ranks are allocated by calls from the training loop: --method adalora makes them",
    "adaption_prompt": "it is for decoders alone",
    "poly": "it wants a task with every example",
    "shadow": "it is for generation",
    "trainable_tokens": "it trains token embeddings, not layers",
    "xlora": "it mixes adapters that are there already",
}
"""Tuners that do not adapt the layers of an encoder by themselves, and why; those that learn prompts neither."""
OURS = (
    *("target_modules", "target_parameters", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "fan_in_fan_out", "megatron_core"),
)
"""Fields whose part `target` and the head play, and those that are for other layers than an encoder's."""
SINGLE = ("int", "float", "bool", "str")
NORMS = r"(?i)(layer_?norm|norm\d?)$"
TARGET = Option(
    "target",
    "str",
    "qv",
    "Layers that are adapted: qv, attention, all-linear, convolutions, all, or a regular expression searched in their "
    "names; qv means all in a network without attention.",
)


@dataclass(frozen=True, slots=True)
class Tuner:
    """A tuner's configuration class, the text of its model, and the options that `--set` takes."""

    config: str
    summary: str
    options: tuple[Option, ...]


@cache
def names() -> dict[str, tuple[str, str, str]]:
    """Name → module, configuration and model class of every tuner that runs here.

    Raises:
        EnvironmentProblem: peft is not installed.
    """
    try:
        home = locate("peft").parent / "tuners"
    except ImportError as error:
        todo = 'Run: pip install "lowrank-bench[peft]".'
        raise EnvironmentProblem("peft is not installed", "methods named peft:TUNER are its tuners", todo) from error
    found: dict[str, tuple[str, str, str]] = {}
    for file in sorted(home.glob("*/__init__.py")):
        if "register_peft_method(" not in (text := file.read_text(encoding="utf-8")):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "register_peft_method":
                given = {k.arg: ast.unparse(k.value).strip("'\"") for k in node.keywords}
                if given["name"] not in ELSEWHERE and not _is_prompt(file.parent.name, given["config_cls"]):
                    module = f"peft.tuners.{file.parent.name}"
                    found[given["name"]] = (module, given["config_cls"], given["model_cls"])
    return found


def _is_prompt(package: str, config: str) -> bool:
    owner = load(f"peft.tuners.{package}").find(config)
    return isinstance(owner, Class) and any(base.node.name == "PromptLearningConfig" for base in _bases(owner))


@cache
def tuner(name: str) -> Tuner:
    """What peft's source says of a tuner.

    Raises:
        UsageError: there is none of that name, or it cannot run here; the error lists those that can.
        EnvironmentProblem: peft is not installed, or its source is not what it was.
    """
    known = names()
    if name not in known:
        why = f"{ELSEWHERE[name]}\n" if name in ELSEWHERE else ""
        raise UsageError(
            f"{'no' if why else 'unknown'} method '{PREFIX}{name}'",
            f"{why}tuners of the installed peft that adapt layers: {', '.join(sorted(known))}",
            did_you_mean(name, known) or "Write for example --method peft:vera.",
        )
    module, config, model = known[name]
    try:
        owner, trained = load(module).find(config), load(module).find(model)
        if not isinstance(owner, Class):
            raise LookupError(f"{module} has no class {config}")
        text = (ast.get_docstring(trained.node) or "") if isinstance(trained, Class) else ""
        summary = " ".join(text.partition("\n\n")[0].split())
        target = TARGET if name != "ln_tuning" else Option("target", "str", NORMS, TARGET.doc)
        return Tuner(config, summary, (target, *_fields(owner).values()))
    except Exception as error:  # another version of peft may be written in another way
        raise EnvironmentProblem(
            f"the options of {PREFIX}{name} cannot be read",
            f"{module}: {type(error).__name__}: {error}",
            "Install another version of peft.",
        ) from error


def _bases(owner: Class) -> list[Class]:
    """All bases that peft itself defines, nearest first."""
    return [above for base in owner.bases() for above in (base, *_bases(base))]


def _fields(owner: Class) -> dict[str, Option]:
    """Fields of a configuration that a single value can set; those that every tuner has are not options of its own."""
    found: dict[str, Option] = {}
    for one in reversed([owner, *_bases(owner)]):
        if one.module.name == "peft.config":
            continue
        for statement in one.node.body:
            if isinstance(statement, ast.AnnAssign) and (option := _option(one.module, statement)):
                found[option.name] = option
    return {name: option for name, option in found.items() if name not in OURS}


def _option(module: Module, statement: ast.AnnAssign) -> Option | None:
    """One field; None where its default or its type is no single value."""
    annotation, value = written_out(module, statement.annotation), statement.value
    settable = [a for a in atoms(ast.parse(annotation, mode="eval").body) if not isinstance(a, str) or a in SINGLE]
    given: dict[str | None, ast.expr] = {}
    if isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] == "field":
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        value = given.get("default")
    if value is None or not settable:
        return None
    try:
        default = evaluate(Value(module, value))
    except ValueError:
        return None
    if not isinstance(default, str | int | float | bool | None):
        return None
    return Option(ast.unparse(statement.target), annotation, default, _help(module, given.get("metadata")))


def _help(module: Module, metadata: ast.expr | None) -> str:
    """The field's `help`, on one line."""
    try:
        found: Any = evaluate(Value(module, metadata)) if metadata else {}
    except ValueError:
        return ""
    return " ".join(str(found.get("help", "")).split())
