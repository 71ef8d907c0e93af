"""Overrides: `--set namespace.key=value`, read once and given to every Config that knows the key.

Several values of an option, `method.rank=4,8`, are a variant each, and several such lists make their product. Values of
an option that `--select` names are no variants, but the candidates of a selection.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from bench.config.lists import split
from bench.config.options import Config, DataclassT, Value, build, options_of, read_value, show
from bench.config.sections import SECTIONS, BackboneConfig, MethodConfig, Sections
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean
from bench.core.registry import Kind

NAMESPACES = ("method", "task", "backbone", *SECTIONS)
"""What can stand before the dot. The options of `method`, `task` and `backbone` depend on which ones are chosen."""
SELECTABLE = ("method", "head", "optim", "penalty", "allocation")
"""Namespaces whose options a selection can choose. `task` decides what is scored, so that trials could not be compared,
`backbone` the weights, whose hash is part of a run's id, and the others change no score."""
_FORM, _SPACES = "namespace.key=value", f"namespaces: {', '.join(NAMESPACES)}"
_EXAMPLE = "Write for example --set method.rank=8."
_SELECT_EXAMPLE = "Write for example --select lr,method.rank --set method.rank=4,8,16."
_KINDS: dict[str, Kind] = {"method": "methods", "task": "tasks", "backbone": "backbones"}
ONE_VALUE = ("data", "runtime")
"""Namespaces whose options decide nothing that tells two runs apart, so that they have one value in a grid."""
LAUNCHERS = {"slurm": "They are options of a launcher: `bench run … --launcher slurm --set slurm.…`."}
"""Namespaces whose options are no part of a request, with what to do about them."""

Name = tuple[str, str]
"""Namespace and key of an option."""
Given = str | tuple[str, ...]
"""A text as typed, whose commas may separate several values; or several values, each as it is."""
Classes = Mapping[str, Mapping[str, type[Config]]]
"""Namespace → name → class of its options."""


@dataclass(frozen=True)
class Overrides:
    """Options that the user changed, as texts.

    Attributes:
        given: those that a run has.
        selected: those that a selection chooses, with their candidates. Where none is chosen yet, the first stands in.
    """

    given: Mapping[Name, Given] = field(default_factory=dict[Name, Given])
    selected: Mapping[Name, Given] = field(default_factory=dict[Name, Given])

    @classmethod
    def parse(cls, settings: Sequence[str]) -> Overrides:
        """Read `namespace.key=value` as typed; everything after the first `=` belongs to the value or its list.

        Raises:
            UsageError: not of that form, an unknown namespace, or a key given twice.
        """
        return cls.of(_pairs(settings, _FORM, _SPACES, _EXAMPLE))

    @classmethod
    def of(cls, values: Mapping[str, Value | Iterable[Value]]) -> Overrides:
        """Take `{"method.rank": 4, "optim.clip": [0, 1]}`; a text means what it means behind `--set`.

        Raises:
            UsageError: a key that is not `namespace.key`, or a list without values.
        """
        texts = {name: _texts(name, value) for name, value in values.items()}
        return cls({_name(name, value): value for name, value in texts.items()})

    def selecting(self, names: Iterable[str]) -> Overrides:
        """Return a copy in which the values of these options are candidates of a selection.

        What cannot be selected, an unknown name or one without values, is refused by `build_configs`.
        """
        chosen = [_split(name) for name in names]
        given = {name: value for name, value in self.given.items() if name not in chosen}
        return Overrides(given, {name: self.given.get(name, ()) for name in chosen})

    def build(self, namespace: str, config: type[DataclassT]) -> DataclassT:
        """Build one Config of a variant from the keys that it knows; errors are those of `options.build`.

        It has the first candidates of selected options, and every combination of them is checked.
        """
        known = options_of(config)
        given = {key: self.value(space, key) for space, key in self.given if space == namespace and key in known}
        space = {key: texts for (name, key), texts in self.selected.items() if name == namespace and key in known}
        every = [dict(zip(space, texts, strict=True)) for texts in product(*space.values())]
        first, *_ = (build(config, {**given, **values}, namespace=namespace) for values in every)
        return first

    def candidates(self, namespace: str, config: type[Config]) -> dict[str, tuple[Value, ...]]:
        """Return the candidates of the selected options of a variant that a Config knows, by name: `method.rank`."""
        hints = typing.get_type_hints(config)
        return {
            f"{space}.{key}": tuple(read_value(text, hints[key]) for text in texts)
            for (space, key), texts in self.selected.items()
            if space == namespace and key in options_of(config)
        }

    def has(self, namespace: str, key: str) -> bool:
        return (namespace, key) in self.given or (namespace, key) in self.selected

    def value(self, namespace: str, key: str) -> str:
        """Return the one value of an option of a variant."""
        given = self.given[namespace, key]
        return given if isinstance(given, str) else given[0]

    def by_name(self) -> dict[str, Given]:
        """Return the options by their names: `method.rank`."""
        every = {**self.given, **self.selected}
        return {f"{space}.{key}": value for (space, key), value in every.items() if value != ()}

    def reaching(self, configs: Iterable[tuple[str, Config]]) -> dict[Name, str]:
        """Return the given options of a variant that these Configs, with their namespaces, know."""
        known = {(space, key) for space, config in configs for key in options_of(type(config))}
        return {name: self.value(*name) for name in self.given if name in known}

    def variants(self, classes: Classes) -> list[Overrides]:
        """Return one for each combination of the values, in which every given option has one value.

        Raises:
            UsageError: a list has an empty or a repeated value, or stands where an option can have one value alone; or
                a selected option has fewer than two values.
        """
        values = [_values(name, given, _owners(name, classes)) for name, given in self.given.items()]
        selected = {name: _candidates(name, given, _owners(name, classes)) for name, given in self.selected.items()}
        return [Overrides(dict(zip(self.given, chosen, strict=True)), selected) for chosen in product(*values)]


@dataclass(frozen=True, kw_only=True)
class Configs:
    """Every Config of a variant, each built once; `overrides` has what it was built from.

    Those of methods are by name as given (`peft:vera`), those of tasks and backbones by registered name (`glue`, `hf`).
    """

    overrides: Overrides
    methods: Mapping[str, MethodConfig]
    tasks: Mapping[str, Config]
    backbones: Mapping[str, BackboneConfig]
    sections: Sections


def build_configs(
    overrides: Overrides, *, methods: Sequence[str], tasks: Sequence[str] = (), backbones: Sequence[str] = ()
) -> list[Configs]:
    """Build the Configs of these methods, tasks and backbones for every variant; a key goes to each that knows it.

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
    return [_build(variant, classes) for variant in overrides.variants(classes)]


def _build(overrides: Overrides, classes: Mapping[str, Mapping[str, type[Any]]]) -> Configs:
    shared: dict[str, Any] = {space: overrides.build(space, config) for space, config in SECTIONS.items()}
    return Configs(
        overrides=overrides,
        methods={name: overrides.build("method", config) for name, config in classes["method"].items()},
        tasks={name: overrides.build("task", config) for name, config in classes["task"].items()},
        backbones={name: overrides.build("backbone", config) for name, config in classes["backbone"].items()},
        sections=Sections(**shared),
    )


def build_each(settings: Sequence[str], *configs: type[Config]) -> list[Any]:
    """Build a Config of each class from `namespace.key=value` as typed, each key with one value.

    Raises:
        UsageError: a key that none of them knows, or a wrong value.
    """
    overrides = Overrides.parse(settings)
    known = [config.full_name(key) for config in configs for key in options_of(config)]
    for name in map(".".join, overrides.given):
        if name not in known:
            todo = did_you_mean(name, known) or "Leave it out."
            raise UsageError(f"--set {name}: unknown option", f"options here: {', '.join(known)}", todo)
    return [overrides.build(config.namespace, config) for config in configs]


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


def _texts(name: str, value: Value | Iterable[Value]) -> Given:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return show(value)
    texts = tuple(map(show, value))
    if not texts:
        raise UsageError(f"--set {name} has no value", "the list is empty", "Give a value, or leave the option out.")
    return texts


def _values(name: Name, given: Given, owners: Sequence[type[Config]]) -> list[tuple[str]]:
    """List the values of an option, each as the only one of a variant; `owners` are the Configs that know it."""
    full = ".".join(name)
    commas = any(options_of(owner)[name[1]].commas for owner in owners)
    texts = given if isinstance(given, tuple) else (given,) if commas else split(given)
    listed = ", ".join(texts)
    if len(texts) > 1 and name[0] in ONE_VALUE:
        known = f"given: {listed}; it says how runs are executed or read, so a list would make the same runs again"
        raise UsageError(f"--set {full} takes one value", known, "Give one of them.")
    if isinstance(given, str) and len(texts) > 1 and "" in texts:
        known = "a list is written a,b,c; \\, is a comma that belongs to a value"
        raise UsageError(f"--set {full}={given}: an empty element", known, "Take the extra comma out.")
    for owner in owners:
        read = [_read(text, typing.get_type_hints(owner)[name[1]]) for text in texts]
        for number, text in enumerate(texts):
            if read[number] in read[:number]:
                raise UsageError(f"--set {full}: {text} is given twice", f"given: {listed}", "Keep one of them.")
    return [(text,) for text in texts]


def _candidates(name: Name, given: Given, owners: Sequence[type[Config]]) -> tuple[str, ...]:
    """List the candidates of an option that is to be selected."""
    texts = tuple(text for (text,) in _values(name, given, owners)) if given else ()
    if len(texts) < 2:
        full, known = ".".join(name), "its values are given by --set, as a list"
        raise UsageError(
            f"--select {full}: there is nothing to choose from",
            f"{known}; given: {full}={texts[0]}" if texts else known,
            f"Give two values or more: --set {full}=A,B,C.",
        )
    return texts


def _read(text: str, hint: object) -> tuple[type, Value]:
    """Return the value that a text stands for, with its type; a wrong one, which `options.build` refuses, as it is."""
    try:
        value = read_value(text, hint)
    except ValueError:
        value = text
    return type(value), value


def _owners(name: Name, classes: Classes) -> list[type[Config]]:
    """List the Configs that know an option."""
    space, key = name
    chosen = [*classes.get(space, {}).values(), *filter(None, [SECTIONS.get(space)])]
    return [config for config in chosen if key in options_of(config)]


def _split(name: str) -> Name:
    """Return namespace and key of a name; a name without a dot is a key without a namespace."""
    space, dot, key = name.partition(".")
    return (space, key) if dot else ("", name)


def _name(name: str, value: Given) -> Name:
    space, dot, key = name.partition(".")
    value = value if isinstance(value, str) else ",".join(value)
    if not dot or not key:
        what = f"--set {name}={value}: not of the form {_FORM}"
        raise UsageError(what, _SPACES, _EXAMPLE)
    if space not in NAMESPACES:
        hint = LAUNCHERS.get(space) or did_you_mean(space, NAMESPACES)
        todo = hint or "`bench show METHOD` lists every option."
        raise UsageError(f"--set {name}={value}: unknown namespace '{space}'", _SPACES, todo)
    return space, key


def _check_keys(overrides: Overrides, classes: Mapping[str, Mapping[str, type[Config]]]) -> None:
    """Refuse a key that no chosen Config knows."""
    configs = [(space, config) for space, chosen in classes.items() for config in chosen.values()]
    keys = [f"{space}.{key}" for space, config in (*configs, *SECTIONS.items()) for key in options_of(config)]
    known = list(dict.fromkeys(keys))
    for space, key in overrides.selected:
        _check_selectable(space, key, known)
    for space, key in (*overrides.given, *overrides.selected):
        if f"{space}.{key}" not in known:
            raise _unknown(space, key, known, list(classes.get(space, ())))


def _check_selectable(space: str, key: str, known: Sequence[str]) -> None:
    """Refuse what is no option, and an option that a selection cannot choose."""
    choices = f"lr and options of {', '.join(SELECTABLE)}"
    if space not in NAMESPACES:
        name = f"{space}.{key}" if space else key
        same = [option for option in known if option.partition(".")[2] == key]
        hint = f"Did you mean '{same[0]}'?" if same else did_you_mean(name, ["lr", *known])
        raise UsageError(f"--select {name}: neither lr nor an option", f"it takes {choices}", hint or _SELECT_EXAMPLE)
    if space not in SELECTABLE or (space, key) == ("method", "start"):
        what = f"--select {space}.{key}: a selection cannot choose it"
        todo = "Give it one value by --set." if space in ONE_VALUE else "Give a list by --set for a run each."
        raise UsageError(what, f"it takes {choices}, except method.start", todo)


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
