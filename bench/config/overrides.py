"""`--set namespace.key=value`: parsed, typed and completed with every option's default."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from bench.config import help
from bench.config.help import Option
from bench.config.sections import NAMESPACES
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean
from bench.records.spec import Option as Value

Options = dict[str, Option]
Given = dict[tuple[str, str], str]
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_WORDS = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "str": "a text", "None": "none"}


def resolve(settings: Sequence[str], method: str) -> dict[str, dict[str, Value]]:
    """Every option of every namespace: the given values, and the defaults of the rest.

    Args:
        settings: `namespace.key=value` as typed; everything after the first `=` belongs to the value.
        method: registered name; the namespace `method` holds its options.

    Raises:
        UsageError: not of that form, a namespace or key that does not exist, a value of another type, a key twice, or
            an option without default that is not given.
        EnvironmentProblem: the method's source cannot be read.
    """
    return resolve_all(settings, [method])[method]


def resolve_all(
    settings: Sequence[str], methods: Sequence[str], tasks: Sequence[str] = (), backbones: Sequence[str] = ()
) -> dict[str, dict[str, dict[str, Value]]]:
    """`resolve` for several methods: a key of `method` must be known to one of them and goes to those that know it.

    Args:
        settings: as in `resolve`.
        methods: registered names.
        tasks: registered names; their options take the place of the shared `task`, and `resolve_own` gives them.
        backbones: likewise for `backbone`.
    """
    given = _parse(settings)
    of_method = {name: _of("methods", name) for name in methods}
    own = {"task": [_of("tasks", name) for name in tasks], "backbone": [_of("backbones", name) for name in backbones]}
    shared = {space: {o.name: o for o in help.namespace(space)} for space in NAMESPACES}
    known = [f"method.{key}" for options in of_method.values() for key in options]
    known += [f"{space}.{key}" for space, options in shared.items() if not own.get(space) for key in options]
    known += [f"{space}.{key}" for space, several in own.items() for options in several for key in options]
    for space, key in given:
        if f"{space}.{key}" not in known:
            raise _unknown(space, key, known, methods, {"task": tasks, "backbone": backbones}.get(space, ()))
    return {
        name: {
            "method": _complete("method", options, given),
            **{space: _complete(space, fields, given) for space, fields in shared.items()},
        }
        for name, options in of_method.items()
    }


def named(settings: Sequence[str]) -> set[str]:
    """Options of the method that `settings` name, whatever their values."""
    return {key for space, key in _parse(settings) if space == "method"}


def resolve_own(
    kind: Literal["tasks", "backbones"], settings: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, Value]]:
    """Options of each registered task or backbone; a key goes to those that know it.

    Raises:
        UsageError: a value of another type.
        EnvironmentProblem: the source cannot be read.
    """
    given = _parse(settings)
    return {name: _complete(kind[:-1], _of(kind, name), given) for name in names}


def resolve_bare(settings: Sequence[str], kind: registry.Kind, name: str) -> dict[str, Value]:
    """Options that are given as `KEY=VALUE`, without a namespace; only those that are given.

    Raises:
        UsageError: a key is unknown, given twice, or has a value of another type.
        EnvironmentProblem: the source cannot be read.
    """
    known, found = _of(kind, name), dict[str, Value]()
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or key not in known:
            what = f"unknown option '{key}' of {name}" if equals else f"--set {setting}: not of the form key=value"
            listed = f"options: {', '.join(f'{o.name}={show(o.default)}' for o in known.values()) or 'none'}"
            raise UsageError(what, listed, did_you_mean(key, known) or f"`bench show {name}` describes them.")
        if key in found:
            raise UsageError(f"--set {key} is given twice", f"as '{show(found[key])}' and as '{text}'", "Keep one.")
        found[key] = _value(key, known[key], text)
    return found


def typed(text: str, annotation: str) -> Value:
    """The value `text` stands for under an annotation such as `int | None` or `Literal['a', 'b']`.

    Raises:
        ValueError: it stands for none; the message says what is expected.
    """
    known = [*atoms(ast.parse(annotation, mode="eval").body)]
    # a text fits everything, so it comes last
    for atom in sorted(known, key=lambda a: a == "str"):
        try:
            return _read(text, atom)
        except ValueError:
            continue
    raise ValueError(f"expected {' or '.join(_say(atom) for atom in known)}")


def _parse(settings: Sequence[str]) -> Given:
    given: Given = {}
    spaces = ("method", *NAMESPACES)
    for setting in settings:
        name, equals, value = setting.partition("=")
        space, dot, key = name.strip().partition(".")
        if not equals or not dot or not key:
            raise UsageError(
                f"--set {setting}: not of the form namespace.key=value",
                f"namespaces: {', '.join(spaces)}",
                "Write for example --set method.rank=8.",
            )
        if space not in spaces:
            raise UsageError(
                f"--set {setting}: unknown namespace '{space}'",
                f"namespaces: {', '.join(spaces)}",
                did_you_mean(space, spaces) or "`bench show METHOD` lists every option.",
            )
        if (space, key) in given:
            raise UsageError(
                f"--set {space}.{key} is given twice",
                f"as '{given[space, key]}' and as '{value.strip()}'",
                "Keep one. A list of values is several commands.",
            )
        given[space, key] = value.strip()
    return given


def _of(kind: registry.Kind, name: str) -> Options:
    description = help.describe(kind, name)
    if description.error:
        raise EnvironmentProblem(
            f"the options of {kind[:-1]} '{name}' cannot be read",
            description.error,
            f"Mend that file, or leave the {kind[:-1]} out.",
        )
    return {option.name: option for option in description.options}


def _unknown(space: str, key: str, known: Sequence[str], methods: Sequence[str], own: Sequence[str]) -> UsageError:
    """Args: `own` are the tasks or backbones whose options the space holds."""
    of_space = [name for name in dict.fromkeys(known) if name.startswith(f"{space}.")]
    owner = f"method {' or '.join(methods)}" if space == "method" else space
    listed = f"options of {owner}: {', '.join(of_space)}" if of_space else f"{owner} has no options"
    # the same key elsewhere (method.eps for optim.eps) is nearer than another key of a like spelling
    elsewhere = [name for name in known if name.partition(".")[2] == key]
    hint = f"Did you mean '{elsewhere[0]}'?" if elsewhere else did_you_mean(f"{space}.{key}", known)
    where = methods[0]
    if own:
        kind: registry.Kind = "tasks" if space == "task" else "backbones"
        where = own[0]
        others = [name for name in registry.entries(kind) if key in _names(kind, name)]
        hint = f"It is an option of {', '.join(others)}." if others else hint
    return UsageError(f"unknown option '{space}.{key}'", listed, f"{hint} `bench show {where}` describes them.".strip())


def _names(kind: registry.Kind, name: str) -> list[str]:
    return [option.name for option in help.describe(kind, name).options]


def _complete(space: str, options: Options, given: Given) -> dict[str, Value]:
    return {key: _value(f"{space}.{key}", option, given.get((space, key))) for key, option in options.items()}


def _value(name: str, option: Option, text: str | None) -> Value:
    if text is None:
        if option.required:
            raise UsageError(f"{name} has no default", option.doc, f"Give it: --set {name}=…")
        return _default(option)
    try:
        return typed(text, option.annotation)
    except ValueError as error:
        default = "" if option.required else f", default {show(option.default)}"
        known = f"{name}: {option.annotation}{default}. {option.doc}".strip()
        raise UsageError(f"--set {name}={text}: {error}", known, "Give a value of that type.") from error


def _default(option: Option) -> Value:
    """`16` as the default of a float is 16.0, so that giving the default changes no identity."""
    default: Any = option.default
    whole = isinstance(default, int) and not isinstance(default, bool)
    known = [*atoms(ast.parse(option.annotation, mode="eval").body)]
    return float(default) if whole and "float" in known and "int" not in known else default


def show(value: object) -> str:
    """A value as `--set` takes it."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def atoms(node: ast.expr) -> Iterator[str | tuple[object]]:
    """Alternatives of an annotation: names of types, and one-tuples that hold a literal."""
    if isinstance(node, ast.BinOp):
        yield from (*atoms(node.left), *atoms(node.right))
    elif isinstance(node, ast.Subscript):
        outer = ast.unparse(node.value).rpartition(".")[2]
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal":
            yield from ((ast.literal_eval(item),) for item in inner)
        elif outer in ("Union", "Optional"):
            yield from (atom for item in inner for atom in atoms(item))
            yield from ("None",) if outer == "Optional" else ()
        else:
            yield ast.unparse(node)
    else:
        yield ast.unparse(node)


def _read(text: str, atom: str | tuple[object]) -> Value:
    """`text` as one alternative; ValueError where it is none."""
    if isinstance(atom, tuple):
        if text != str(atom[0]) and text.lower() != show(atom[0]):
            raise ValueError
        return atom[0]  # type: ignore[return-value]
    if atom == "float":
        number = float(text)
        if not math.isfinite(number):
            raise ValueError
        return number
    if atom == "int":
        return int(text)
    if atom == "str":
        return text
    words: dict[str, Value] = {"None": {"none": None}, "bool": _TRUTH}.get(atom, {})  # type: ignore[assignment]
    if text.lower() not in words:
        raise ValueError
    return words[text.lower()]


def _say(atom: str | tuple[object]) -> str:
    return show(atom[0]) if isinstance(atom, tuple) else _WORDS.get(atom, f"{atom} (not settable here)")
