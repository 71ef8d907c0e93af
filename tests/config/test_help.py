"""Reading methods and tasks by `ast` gives what importing them would, and never runs them."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.config import source
from bench.config.help import describe, namespace
from bench.config.sections import NAMESPACES
from bench.core import registry

Register = Callable[..., None]

BASE = '''
"""Base module."""
from dataclasses import dataclass

SIZE = 4

@dataclass(frozen=True, kw_only=True)
class Shared:
    rank: int = 8
    """Width of
    the update."""
    kind: "int | None" = None
    """May be none."""

class Parent:
    needs = frozenset({"text"})
    learning_rate = 0.5
    saves_adapter = True
    cells = ("a",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Shared):
        depth: int = SIZE
        """How deep."""
'''
CHILD = '''
"""Mine: does nothing.

More about it.
"""
from dataclasses import dataclass, field
from typing import ClassVar, Literal
from . import base as b
from .base import Parent

Form = Literal["x", "y"]
TABLE = {"p": object(), "q": object()}

class Mine(Parent):
    """The equation."""

    cells = tuple(TABLE)
    saves_adapter = bool(TABLE)
    learning_rate: ClassVar[float] = -1e-3

    @dataclass(frozen=True, kw_only=True)
    class Config(b.Parent.Config):
        scale: ClassVar[float] = 3.0
        rank: int = 2
        form: Form = "x"
        """Which form."""
        late: float = field(default=0.25)
        needed: str

class Heir(Mine):
    """Inherits all of it."""

class Alias:
    Config = b.Shared
'''


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Writes the package `acme` of a third party, whose own import fails, and registers names of it as methods."""

    def write(files: dict[str, str], names: dict[str, str], init: str = "raise RuntimeError('executed')") -> None:
        folder = tmp_path / "acme"
        folder.mkdir()
        for name, text in {"__init__": init, **files}.items():
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        for name, where in names.items():
            monkeypatch.setitem(registry.BUILTIN["methods"], name, where)
        registry.entries.cache_clear()
        source.load.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    monkeypatch.undo()
    registry.entries.cache_clear()
    source.load.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme"]:
        del sys.modules[name]


def test_reads_text_attributes_and_options(register: Register) -> None:
    register({"base": BASE, "child": CHILD}, {"mine": "acme.child:Mine"})
    found = describe("methods", "mine")
    assert found.error == ""
    assert found.summary == "Mine: does nothing."
    assert found.doc == "More about it.\n\nThe equation."
    assert found.attributes == {"needs": frozenset({"text"}), "learning_rate": -0.001, "cells": ("p", "q")}
    options = {o.name: (o.annotation, o.default, o.doc, o.required) for o in found.options}
    assert options == {
        "rank": ("int", 2, "Width of the update.", False),
        "kind": ("int | None", None, "May be none.", False),
        "depth": ("int", 4, "How deep.", False),
        "form": ("Literal['x', 'y']", "x", "Which form.", False),
        "late": ("float", 0.25, "", False),
        "needed": ("str", None, "", True),
    }
    assert "acme" not in sys.modules


@pytest.mark.parametrize("name", ["Mine", "Heir", "Alias"])
def test_same_fields_in_the_same_order_as_dataclasses(register: Register, name: str) -> None:
    register({"base": BASE, "child": CHILD}, {"mine": f"acme.child:{name}"}, init="")
    config = getattr(importlib.import_module("acme.child"), name).Config
    real = [(f.name, None if f.default is dataclasses.MISSING else f.default) for f in dataclasses.fields(config)]
    assert [(o.name, o.default) for o in describe("methods", "mine").options] == real


@pytest.mark.parametrize("name", registry.BUILTIN["methods"])
def test_built_in_methods_are_read_as_they_are(name: str) -> None:
    method = registry.load("methods", name)
    found = describe("methods", name)
    assert found.error == ""
    assert found.summary == (sys.modules[method.__module__].__doc__ or "").splitlines()[0]
    real = {f.name: f.default for f in dataclasses.fields(method.Config)}
    assert {o.name: o.default for o in found.options} == real
    assert all(o.doc for o in found.options), "every option has its text"
    for attribute in ("learning_rate", "learning_rates", "needs", "saves_adapter"):
        assert found.attributes[attribute] == getattr(method, attribute)


@pytest.mark.parametrize("name", registry.BUILTIN["tasks"])
def test_built_in_tasks_are_read_as_they_are(name: str) -> None:
    found = describe("tasks", name)
    assert (found.error, found.attributes.get("members", ())) == ("", registry.load("tasks", name).members)


@pytest.mark.parametrize("name", NAMESPACES)
def test_namespaces_are_read_as_they_are(name: str) -> None:
    real = {f.name: f.default for f in dataclasses.fields(NAMESPACES[name])}
    assert {o.name: o.default for o in namespace(name)} == real
    assert all(o.doc for o in namespace(name))


@pytest.mark.parametrize(
    ("child", "where", "said"),
    [
        ("def broken(:", "acme.child:Mine", "SyntaxError"),
        ('"""Text."""', "acme.child:Mine", "no class 'Mine'"),
        ("", "acme.absent:Mine", "no module 'acme.absent'"),
        ("", "nowhere.child:Mine", "no module 'nowhere'"),
        ("", "acme.child", "acme.child"),
        ("class Mine(Mine): ...", "acme.child:Mine", "RecursionError"),
        ("class Mine:\n class Config:\n  a: int = len('abc')", "acme.child:Mine", "`len('abc')` is not a literal"),
    ],
)
def test_what_cannot_be_read_is_said_and_not_raised(register: Register, child: str, where: str, said: str) -> None:
    register({"child": child}, {"mine": where})
    assert said in describe("methods", "mine").error


def test_text_is_kept_where_the_class_is_broken(register: Register) -> None:
    register({"child": '"""A good line."""\nclass Mine:\n class Config:\n  a: int = f()'}, {"mine": "acme.child:Mine"})
    found = describe("methods", "mine")
    assert found.summary == "A good line."
    assert found.error


def test_options_come_from_our_bases_in_a_third_partys_class(register: Register) -> None:
    child = "from methods.lora.method import LoRA\nclass Mine(LoRA): ..."
    register({"child": child}, {"mine": "acme.child:Mine"})
    assert describe("methods", "mine").options == describe("methods", "lora").options != ()
