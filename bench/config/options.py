"""Options: the fields of a Config, with default, help and range in one place, and read from text by their type.

@dataclass(frozen=True, kw_only=True)
class LoRAConfig(MethodConfig):
    rank: int = option(8, "r, the inner width of B·A", at_least=1)

LoRAConfig(rank=0)  # UsageError: method.rank=0: it must be at least 1
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from bench.core.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DataclassT = TypeVar("DataclassT", bound="DataclassInstance")
Value = str | int | float | bool | None
"""What an option can hold."""

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_EXPECTED: dict[object, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "a text",
    None: "none",
}


def option(
    default: object = dataclasses.MISSING,
    help: str = "",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    used_with: Mapping[str, Sequence[str]] | None = None,
    commas: bool = False,
    scales_parameters: bool = False,
) -> Any:
    """Declare a field of a Config.

    Args:
        default: its default; left out, the option must be given.
        help: what it does, for `bench show` and error messages.
        at_least: smallest allowed value; None as a value of the option always passes.
        at_most: largest allowed value.
        above: the value must be larger than this.
        used_with: another option of the Config, and its values with which this one has an effect. With any other value
            only the default is accepted, since two specifications would otherwise stand for one experiment.
        commas: of a text: commas belong to the value. Those of any other option separate values of several runs.
        scales_parameters: of a whole number: the trained parameters grow with it, as with a rank, so that
            `--match-params` may choose it.
    """
    limits = {"at_least": at_least, "at_most": at_most, "above": above, "used_with": used_with or {}}
    marks = {"commas": commas, "scales_parameters": scales_parameters}
    return dataclasses.field(default=default, metadata={"help": help, **marks, **limits})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all options: checks the declared limits when it is built.

    Attributes:
        namespace: what stands before the key in `--set namespace.key=value`; empty where keys stand alone.
    """

    namespace: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check the declared limits; the UsageError names the option and what is allowed."""
        floats = _float_fields(type(self))
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), self.full_name(field.name)
            if field.name in floats and type(value) is int:  # 16 and 16.0 are one value, and give one run id
                object.__setattr__(self, field.name, value := float(value))
            if isinstance(value, int | float):
                _check_range(name, value, field.metadata)
            for other, users in field.metadata.get("used_with", {}).items():
                if value != field.default and getattr(self, other) not in users:
                    raise UsageError(
                        f"{name}={show(value)} has no effect with {self.full_name(other)}={getattr(self, other)}",
                        f"it is used with {self.full_name(other)} = {', '.join(users)}",
                        "Leave it out, or choose one of these.",
                    )

    @classmethod
    def full_name(cls, key: str) -> str:
        """Return the key as `--set` takes it: `method.rank`."""
        return f"{cls.namespace}.{key}" if cls.namespace else key

    def to_json(self) -> dict[str, Value]:
        """Return every option as a plain JSON value."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def changed(self, **changes: Value) -> Self:
        """Return a copy with some options changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class Option:
    """One field of a Config, described.

    Attributes:
        type: its type as `--set` reads it: `int`, `float or none`, `mean|cls`.
        default: None also where `required`.
        commas: whether commas belong to a value, instead of separating several.
    """

    name: str
    type: str
    default: Value
    help: str
    required: bool = False
    commas: bool = False


@cache
def options_of(config: type[DataclassInstance]) -> dict[str, Option]:
    """Describe the fields of a Config by name, inherited ones first."""
    hints = typing.get_type_hints(config)
    return {
        field.name: Option(
            name=field.name,
            type=describe_type(hints[field.name]),
            default=None if field.default is dataclasses.MISSING else field.default,
            help=" ".join(str(field.metadata.get("help", "")).split()),
            required=field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
            commas=bool(field.metadata.get("commas")),
        )
        for field in dataclasses.fields(config)
    }


def scaling_option(config: type[DataclassInstance]) -> str | None:
    """Return the first option that is declared to scale the trained parameters; None where there is none."""
    return next((field.name for field in dataclasses.fields(config) if field.metadata.get("scales_parameters")), None)


def build(config: type[DataclassT], given: Mapping[str, Value], *, namespace: str = "") -> DataclassT:
    """Build a Config from texts, as typed on a command line, or from values.

    Args:
        config: the class.
        given: some of its options; a text is read by the option's type, any other value must already fit it.
        namespace: for messages, where the class does not say its own.

    Raises:
        UsageError: a value has the wrong type, is out of range, or an option without default is missing.
    """
    hints = typing.get_type_hints(config)
    space = namespace or getattr(config, "namespace", "")
    values: dict[str, Value] = {}
    for key, field in options_of(config).items():
        name = f"{space}.{key}" if space else key
        if key in given:
            try:
                values[key] = read_value(given[key], hints[key])
            except ValueError as error:
                default = "" if field.required else f", default {show(field.default)}"
                known = f"{name}: {field.type}{default}. {field.help}".strip()
                what = f"--set {name}={show(given[key])}: {error}"
                raise UsageError(what, known, "Give a value of that type.") from error
        elif field.required:
            raise UsageError(f"{name} has no default", field.help, f"Give it: --set {name}=…")
    return config(**values)


def read_value(value: Value, hint: object) -> Value:
    """Return the value that a text stands for under a type such as `int | None` or `Literal["a", "b"]`.

    What is no text must already be of that type; an int also passes for a float.

    Raises:
        ValueError: it stands for none; the message says what is expected.
    """
    kinds = alternatives(hint)
    for kind in sorted(kinds, key=lambda kind: kind is str):  # any text fits `str`, so `str` comes last
        try:
            return _read(value, kind)
        except ValueError:
            continue
    raise ValueError(f"expected {' or '.join(_expected(kind) for kind in kinds)}")


@dataclass(frozen=True)
class Choice:
    """One value of a `Literal`."""

    value: Value


def alternatives(hint: object) -> list[object]:
    """List what a type allows: `int`, `float`, `bool`, `str`, None, and a `Choice` for each value of a `Literal`."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return [Choice(item) for item in typing.get_args(hint)]
    if origin in (typing.Union, types.UnionType):
        return [kind for item in typing.get_args(hint) for kind in alternatives(item)]
    return [None if hint is type(None) else hint]


def describe_type(hint: object) -> str:
    """Write a type as help shows it: `int`, `float or none`, `mean|cls`."""
    literals = [show(kind.value) for kind in alternatives(hint) if isinstance(kind, Choice)]
    plain = [kind for kind in alternatives(hint) if not isinstance(kind, Choice)]
    others = ["none" if kind is None else getattr(kind, "__name__", str(kind)) for kind in plain]
    return " or ".join([*(["|".join(literals)] if literals else []), *others])


def show(value: object) -> str:
    """Write a value as `--set` takes it."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(value: Value, kind: object) -> Value:
    """Return the value of one of the `alternatives`; raises ValueError if it is none."""
    if isinstance(value, str):
        value = _parse(value, kind)
    if kind is float and type(value) is int:
        value = float(value)
    if isinstance(kind, Choice):
        fits = value == kind.value and type(value) is type(kind.value)
    else:
        fits = value is None if kind is None else type(value) is kind
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError
    return value


def _parse(text: str, kind: object) -> Value:
    """Return what a text stands for, or the text itself where it stands for no value of that kind."""
    if kind is int or kind is float:
        return kind(text)
    if kind is bool:
        return _BOOLEANS.get(text.lower(), text)
    if kind is None:
        return None if text.lower() == "none" else text
    if isinstance(kind, Choice) and (text == str(kind.value) or text.lower() == show(kind.value)):
        return kind.value
    return text


def _expected(kind: object) -> str:
    if isinstance(kind, Choice):
        return show(kind.value)
    return _EXPECTED.get(kind, f"{getattr(kind, '__name__', kind)} (not settable here)")


@cache
def _float_fields(config: type[Config]) -> frozenset[str]:
    kinds = {name: alternatives(hint) for name, hint in typing.get_type_hints(config).items()}
    return frozenset(name for name, allowed in kinds.items() if float in allowed and int not in allowed)


def _check_range(name: str, value: float, limits: Mapping[str, float | None]) -> None:
    low, high, above = (limits.get(limit) for limit in ("at_least", "at_most", "above"))
    if (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above):
        return
    bounds = (("at least", low), ("more than", above), ("at most", high))
    allowed = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
    if low is not None and high is not None:
        allowed = f"between {low:g} and {high:g}"
    raise UsageError(f"{name}={value}", f"it must be {allowed}", "Choose a value in that range.")
