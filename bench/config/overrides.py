"""Overrides: `--set namespace.key=value`, read once and given to every Config that knows the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.config.options import Config, DataclassT, Value, build, options_of, show
from bench.config.sections import SECTIONS, BackboneConfig, MethodConfig, Sections
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean
from bench.core.registry import Kind

NAMESPACES = ("method", "task", "backbone", *SECTIONS)
"""What can stand before the dot. The options of `method`, `task` and `backbone` depend on which ones are chosen."""
_FORM, _SPACES = "namespace.key=value", f"namespaces: {', '.join(NAMESPACES)}"
_EXAMPLE = "Write for example --set method.rank=8."
_KINDS: dict[str, Kind] = {"method": "methods", "task": "tasks", "backbone": "backbones"}


@dataclass(frozen=True)
class Overrides:
    """Options that the user changed.

    Attributes:
        given: `(namespace, key)` → the value: a text, or in Python any value that an option can hold.
    """

    given: Mapping[tuple[str, str], Value] = field(default_factory=dict[tuple[str, str], Value])

    @classmethod
    def parse(cls, settings: Sequence[str]) -> Overrides:
        """Read `namespace.key=value` as typed; everything after the first `=` belongs to the value.

        Raises:
            UsageError: not of that form, an unknown namespace, or a key given twice.
        """
        return cls.of(_pairs(settings, _FORM, _SPACES, _EXAMPLE))

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Overrides:
        """Take `{"method.rank": 4}`; raises UsageError for a key that is not `namespace.key`."""
        return cls({_split(name, show(value)): value for name, value in values.items()})

    def build(self, namespace: str, config: type[DataclassT]) -> DataclassT:
        """Build one Config from the keys that it knows; errors are those of `options.build`."""
        known = options_of(config)
        given = {key: value for (space, key), value in self.given.items() if space == namespace and key in known}
        return build(config, given, namespace=namespace)

    def has(self, namespace: str, key: str) -> bool:
        return (namespace, key) in self.given


@dataclass(frozen=True, kw_only=True)
class Configs:
    """Every Config of a command, each built once.

    Those of methods are by name as given (`peft:vera`), those of tasks and backbones by registered name (`glue`, `hf`).
    """

    methods: Mapping[str, MethodConfig]
    tasks: Mapping[str, Config]
    backbones: Mapping[str, BackboneConfig]
    sections: Sections


def build_configs(
    overrides: Overrides, *, methods: Sequence[str], tasks: Sequence[str] = (), backbones: Sequence[str] = ()
) -> Configs:
    """Build the Configs of these methods, tasks and backbones; a key goes to each of them that knows it.

    Raises:
        UsageError: a name or a key is unknown, or a value has the wrong type or is out of range.
        EnvironmentProblem: a method is a tuner of peft, and peft is not installed.
    """
    chosen = {"method": methods, "task": tasks, "backbone": backbones}
    classes = {
        space: {name: registry.load_config(_KINDS[space], name) for name in names} for space, names in chosen.items()
    }
    for name, kind in classes["method"].items():
        if not issubclass(kind, MethodConfig):
            what = f"the options of method '{name}' are no MethodConfig"
            known = f"its Config is {kind.__module__}:{kind.__qualname__}"
            raise EnvironmentProblem(what, known, "Derive it from bench.config.sections.MethodConfig.")
    _check_keys(overrides, classes)
    shared: dict[str, Any] = {space: overrides.build(space, config) for space, config in SECTIONS.items()}
    return Configs(
        methods={name: overrides.build("method", config) for name, config in classes["method"].items()},
        tasks={name: overrides.build("task", config) for name, config in classes["task"].items()},
        backbones={name: overrides.build("backbone", config) for name, config in classes["backbone"].items()},
        sections=Sections(**shared),
    )


def build_bare(settings: Sequence[str], config: type[Config], owner: str) -> dict[str, Value]:
    """Read `KEY=VALUE` without a namespace, as experiments take them; only the given options are returned."""
    known = options_of(config)
    listed = f"options: {', '.join(f'{o.name}={show(o.default)}' for o in known.values()) or 'none'}"
    given = _pairs(settings, "key=value", listed, f"`bench show {owner}` describes them.")
    for key in given:
        if key not in known:
            todo = did_you_mean(key, known) or f"`bench show {owner}` describes them."
            raise UsageError(f"unknown option '{key}' of {owner}", listed, todo)
    built = build(config, given)
    return {key: getattr(built, key) for key in given}


def _pairs(settings: Sequence[str], form: str, known: str, todo: str) -> dict[str, str]:
    """Read `key=value` texts, each key once; `form`, `known` and `todo` are for messages."""
    pairs: dict[str, str] = {}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise UsageError(f"--set {setting}: not of the form {form}", known, todo)
        if key in pairs:
            values = f"as '{pairs[key]}' and as '{value}'"
            raise UsageError(f"--set {key} is given twice", values, "Keep one of them.")
        pairs[key] = value
    return pairs


def _split(name: str, value: str) -> tuple[str, str]:
    space, dot, key = name.partition(".")
    if not dot or not key:
        what = f"--set {name}={value}: not of the form {_FORM}"
        raise UsageError(what, _SPACES, _EXAMPLE)
    if space not in NAMESPACES:
        todo = did_you_mean(space, NAMESPACES) or "`bench show METHOD` lists every option."
        raise UsageError(f"--set {name}={value}: unknown namespace '{space}'", _SPACES, todo)
    return space, key


def _check_keys(overrides: Overrides, classes: Mapping[str, Mapping[str, type[Config]]]) -> None:
    """Refuse a key that no chosen Config knows."""
    configs = [(space, config) for space, chosen in classes.items() for config in chosen.values()]
    keys = [f"{space}.{key}" for space, config in (*configs, *SECTIONS.items()) for key in options_of(config)]
    known = list(dict.fromkeys(keys))
    for space, key in overrides.given:
        if f"{space}.{key}" not in known:
            raise _unknown(space, key, known, list(classes.get(space, ())))


def _unknown(space: str, key: str, known: Sequence[str], owners: Sequence[str]) -> UsageError:
    """Word an unknown key; `owners` are the chosen methods, tasks or backbones of its namespace."""
    of_space = [name for name in known if name.startswith(f"{space}.")]
    owner = f"{space} {' or '.join(owners)}" if owners else space
    listed = f"options of {owner}: {', '.join(of_space)}" if of_space else f"{owner} has no options"
    # the same key elsewhere (method.eps for optim.eps) is nearer than another key of a like spelling
    elsewhere = [name for name in known if name.partition(".")[2] == key]
    hint = f"Did you mean '{elsewhere[0]}'?" if elsewhere else did_you_mean(f"{space}.{key}", known)
    if space in ("task", "backbone"):
        kind = _KINDS[space]
        others = [name for name in registry.entries(kind) if key in options_of(registry.load_config(kind, name))]
        hint = f"It is an option of {', '.join(others)}." if others else hint
    shown = f"`bench show {owners[0] if owners else 'METHOD'}` describes them."
    return UsageError(f"unknown option '{space}.{key}'", listed, f"{hint} {shown}".strip())
