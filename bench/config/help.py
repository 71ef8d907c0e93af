"""Text and options of methods, tasks and backbones, read from their source by `ast`: nothing is executed."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import zip_longest
from typing import Any

from bench.config.sections import NAMESPACES
from bench.config.source import Class, Value, assignment, evaluate, load, written_out
from bench.core.registry import PREFIXES, Kind, entries, where

_FOLLOWS = {"peft:": "TUNER", "runs:": "RUN", "timm:": "NAME"}
"""What stands behind a prefix, in lists."""


@dataclass(frozen=True, slots=True)
class Option:
    """One field of an options dataclass: `annotation` and `doc` as written, `default` None where `required`."""

    name: str
    annotation: str
    default: Any
    doc: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the source says of a name.

    Attributes:
        summary: first docstring line of the module.
        doc: the rest of it, then the class's docstring.
        options: fields of the class's `Config`, inherited ones first.
        attributes: class attributes with literal values, inherited ones included.
        error: why something could not be read; empty where all was.
    """

    name: str
    summary: str = ""
    doc: str = ""
    options: tuple[Option, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    error: str = ""


def describe(kind: Kind, name: str) -> Description:
    """What the source of a registered name says; whatever is wrong with that source is in `error`.

    Raises:
        UsageError: the name is not registered.
    """
    found = _read(name, where(kind, name))
    if kind != "methods" or name in entries(kind):
        return found
    from bench.config.peft_options import PREFIX, tuner

    theirs = tuner(name.removeprefix(PREFIX))
    return replace(found, summary=theirs.summary, options=theirs.options)


def prefixed(kind: Kind) -> list[Description]:
    """One for every prefix of names, such as `peft:TUNER`."""
    return [_read(f"{prefix}{_FOLLOWS[prefix]}", target) for prefix, target in PREFIXES.get(kind, {}).items()]


def _read(name: str, target: str) -> Description:
    module_name, _, class_name = target.partition(":")
    summary = doc = ""
    try:
        module = load(module_name)
        summary, _, rest = (ast.get_docstring(module.tree) or "").partition("\n")
        found = module.find(class_name)
        if not isinstance(found, Class):
            raise LookupError(f"no class '{class_name}' in it")
        doc = "\n\n".join(filter(None, (rest.strip(), ast.get_docstring(found.node) or "")))
        options = _config(found)
        return Description(name=name, summary=summary, doc=doc, options=options, attributes=_attributes(found))
    except Exception as error:  # third-party source may be wrong in any way, and the list must go on
        reason = f"{target}: {type(error).__name__}: {error}"
        return Description(name=name, summary=summary, doc=doc, error=reason)


@cache
def namespace(name: str) -> tuple[Option, ...]:
    """Options of a namespace of `bench.config.sections`, such as `head`."""
    kind = NAMESPACES[name]
    found = load(kind.__module__).find(kind.__name__)
    assert isinstance(found, Class)
    return _fields(found)


def _config(owner: Class) -> tuple[Option, ...]:
    """Options of the class's `Config`, which may be nested, inherited or another class's name."""
    config = owner.member("Config")
    if isinstance(config, Value):
        config = config.module.resolve(config.node)
    return _fields(config) if isinstance(config, Class) else ()


def _fields(owner: Class) -> tuple[Option, ...]:
    """Fields in the order of `dataclasses.fields`; an override without a text of its own keeps the inherited one."""
    found: dict[str, Option] = {}
    for base in reversed([*owner.bases()]):
        found |= {option.name: option for option in _fields(base)}
    body = owner.node.body
    for statement, following in zip_longest(body, body[1:]):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name, annotation = statement.target.id, written_out(owner.module, statement.annotation)
        if annotation.startswith(("ClassVar", "typing.ClassVar")):
            continue
        doc = _text(following) or (found[name].doc if name in found else "")
        required = statement.value is None
        default = None if statement.value is None else evaluate(Value(owner.module, statement.value))
        found[name] = Option(name, annotation, default, doc, required)
    return tuple(found.values())


def _attributes(owner: Class) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed([*owner.bases()]):
        found |= _attributes(base)
    for statement in owner.node.body:
        if assigned := assignment(statement):
            try:
                found[assigned[0]] = evaluate(Value(owner.module, assigned[1]))
            except ValueError:
                found.pop(assigned[0], None)  # computed at run time: better unsaid than the base's value
    return found


def _text(statement: ast.stmt | None) -> str:
    """The string that follows an assignment, on one line."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        text = statement.value.value
        return " ".join(text.split()) if isinstance(text, str) else ""
    return ""
