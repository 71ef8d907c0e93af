"""Python source read without running it: modules, classes with their bases, and the values of literals."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

OURS = frozenset({"bench", "methods", "tasks"})
"""Packages that a third party's class may inherit options from; its own is the other one that is read."""
_BUILD: dict[str, Callable[[Any], Any]] = {c.__name__: c for c in (tuple, list, set, frozenset, sorted)}


class Class(NamedTuple):
    """A class definition and the module it stands in."""

    module: Module
    node: ast.ClassDef

    def bases(self) -> Iterator[Class]:
        """Bases whose source is read; those of foreign packages (lightning, torch) hold no options."""
        for expression in self.node.bases:
            base = self.module.resolve(expression)
            if isinstance(base, Class):
                yield base

    def member(self, name: str) -> Class | Value | None:
        """A nested class or assigned expression of this class or of its bases."""
        for statement in self.node.body:
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                return Class(self.module, statement)
            assigned = assignment(statement)
            if assigned and assigned[0] == name:
                return Value(self.module, assigned[1])
        return next(filter(None, (base.member(name) for base in self.bases())), None)


class Value(NamedTuple):
    """An expression and the module it stands in."""

    module: Module
    node: ast.expr


@dataclass(frozen=True, eq=False)
class Module:
    """The parsed source of a module."""

    name: str
    path: Path
    tree: ast.Module

    @cached_property
    def definitions(self) -> dict[str, Class | Value]:
        """Classes and assignments of the top level, also inside `if` and `try`."""
        found: dict[str, Class | Value] = {}
        for statement in _flat(self.tree.body):
            if isinstance(statement, ast.ClassDef):
                found[statement.name] = Class(self, statement)
            elif assigned := assignment(statement):
                found[assigned[0]] = Value(self, assigned[1])
        return found

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """Local name → (module, name in it); the second is empty for a module itself."""
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        found: dict[str, tuple[str, str]] = {}
        for statement in _flat(self.tree.body):
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    found[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0],
                        "",
                    )
            elif isinstance(statement, ast.ImportFrom):
                relative = "." * statement.level + (statement.module or "")
                source = importlib.util.resolve_name(relative, package)
                found |= {alias.asname or alias.name: (source, alias.name) for alias in statement.names}
        return found

    def find(self, dotted: str) -> Class | Value | Module | None:
        """What a name of this module stands for."""
        return self.resolve(ast.parse(dotted, mode="eval").body)

    def resolve(self, expression: ast.expr) -> Class | Value | Module | None:
        """The definition a name, `a.b` or `Generic[...]` stands for; None where it is not in a source that is read."""
        if isinstance(expression, ast.Subscript):
            return self.resolve(expression.value)
        if isinstance(expression, ast.Name):
            return self.definitions.get(expression.id) or self._imported(expression.id)
        if not isinstance(expression, ast.Attribute):
            return None
        owner = self.resolve(expression.value)
        if isinstance(owner, Class):
            return owner.member(expression.attr)
        return owner.submodule(expression.attr) if isinstance(owner, Module) else None

    def submodule(self, name: str) -> Class | Value | Module | None:
        """A name defined here, or a module of this package."""
        found = self.resolve(ast.Name(id=name))
        return load(f"{self.name}.{name}") if found is None and self.path.name == "__init__.py" else found

    def _imported(self, local: str) -> Class | Value | Module | None:
        source, name = self.imports.get(local, ("", ""))
        top = source.partition(".")[0]
        if not source or top not in OURS | {self.name.partition(".")[0]}:
            return None
        module = load(source)
        return module.submodule(name) if name else module


@cache
def load(name: str) -> Module:
    """Parse a module without executing it or its parents.

    Raises:
        ImportError: there is no such module, or it has no Python source.
        SyntaxError: the source is not Python.
    """
    path = locate(name)
    return Module(name, path, ast.parse(path.read_bytes(), filename=str(path)))


def locate(name: str) -> Path:
    """The source file of a module. `importlib.util.find_spec` would execute the parents, which may be heavy."""
    search: Sequence[str] | None = None
    parts = name.split(".")
    spec = None
    for depth in range(1, len(parts) + 1):
        spec = _find_spec(".".join(parts[:depth]), search)
        if spec is None:
            raise ModuleNotFoundError(f"no module '{'.'.join(parts[:depth])}'")
        search = spec.submodule_search_locations
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise ImportError(f"no Python source of '{name}'")
    return Path(spec.origin)


def _find_spec(name: str, search: Sequence[str] | None) -> ModuleSpec | None:
    try:
        specs = (finder.find_spec(name, search) for finder in sys.meta_path)
        return next(filter(None, specs), None)
    except KeyError:  # a namespace package inside another wants its parent imported
        return importlib.util.find_spec(name)


def written_out(module: Module, expression: ast.expr) -> str:
    """The annotation as written, with the module's own aliases (`Size = Literal[8, 16]`) written out."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        expression = ast.parse(expression.value, mode="eval").body
    alias = module.resolve(expression) if isinstance(expression, ast.Name | ast.Attribute) else None
    if isinstance(alias, Value):
        return written_out(alias.module, alias.node)
    if isinstance(expression, ast.BinOp):
        return f"{written_out(module, expression.left)} | {written_out(module, expression.right)}"
    return ast.unparse(expression)


def evaluate(value: Value) -> Any:
    """The value of a literal, of a name that stands for one, or of `frozenset(...)`, `tuple(...)`, `field(...)` of one.

    Raises:
        ValueError: only running the code would tell.
    """
    module, node = value
    if isinstance(node, ast.Name | ast.Attribute):
        target = module.resolve(node)
        if isinstance(target, Value):
            return evaluate(target)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        build = _BUILD.get(node.func.id)
        if build and len(node.args) <= 1 and not node.keywords:
            return build(_items(Value(module, node.args[0]))) if node.args else build(())
        for keyword in node.keywords if node.func.id == "field" else ():
            if keyword.arg == "default":
                return evaluate(Value(module, keyword.value))
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"`{ast.unparse(node)}` is not a literal") from None


def _items(value: Value) -> Any:
    """What iterating over it gives: a mapping's keys, whatever its values are."""
    target = value.module.resolve(value.node) if isinstance(value.node, ast.Name | ast.Attribute) else value
    if isinstance(target, Value) and isinstance(target.node, ast.Dict):
        return [evaluate(Value(target.module, key)) for key in target.node.keys if key]
    return evaluate(value)


def assignment(statement: ast.stmt) -> tuple[str, ast.expr] | None:
    """`(name, value)` of `name = value` or `name: T = value`."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    else:
        return None
    return (target.id, statement.value) if isinstance(target, ast.Name) and statement.value else None


def _flat(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from _flat([*statement.body, *statement.orelse])
