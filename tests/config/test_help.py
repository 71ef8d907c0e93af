"""Descriptions of methods, tasks and backbones; code of third parties that cannot be imported is named, not raised."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.config.help import describe, describe_prefixes, facts
from bench.config.sections import MethodConfig
from bench.core import registry

Register = Callable[..., None]

METHOD = '''
"""Mine: does nothing.

More about it.
"""
from dataclasses import dataclass

from bench.config.options import option
from bench.config.sections import MethodConfig

class Mine:
    """The equation."""

    @dataclass(frozen=True, kw_only=True)
    class Config(MethodConfig):
        learning_rate = 0.5
        rank: int = option(2, "Width.")
'''


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Writes the module `acme` of a third party and registers its class `Mine` as the method `mine`."""

    def write(text: str, target: str = "acme:Mine") -> None:
        (tmp_path / "acme.py").write_text(text, encoding="utf-8")
        monkeypatch.setitem(registry.BUILTIN["methods"], "mine", registry.Entry(target))
        registry.entries.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    monkeypatch.undo()
    registry.entries.cache_clear()
    sys.modules.pop("acme", None)


def test_a_class_with_a_config_of_its_own_is_described(register: Register) -> None:
    register(METHOD)
    found = describe("methods", "mine")
    assert (found.error, found.summary, found.doc) == ("", "Mine: does nothing.", "More about it.\n\nThe equation.")
    assert [(o.name, o.type, o.default, o.help) for o in found.options] == [("rank", "int", 2, "Width.")]
    assert found.subject.learning_rate == 0.5
    assert facts("methods", found)["needs"] == MethodConfig.needs


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        ("def broken(:", "acme:Mine", "SyntaxError"),
        ("raise RuntimeError('executed')", "acme:Mine", "RuntimeError: executed"),
        ("", "acme:Mine", "AttributeError"),
        ("", "nowhere.child:Mine", "ModuleNotFoundError"),
        ("class Mine: ...", "acme:Mine", "has no attribute 'Config'"),
        ("", "acme", "acme"),
    ],
)
def test_what_cannot_be_imported_is_named_and_not_raised(register: Register, text: str, target: str, said: str) -> None:
    register(text, target)
    found = describe("methods", "mine")
    assert said in found.error
    assert facts("methods", found) == {}


@pytest.mark.parametrize("name", registry.BUILTIN["methods"])
def test_built_in_methods_are_described_by_their_config(name: str) -> None:
    entry, found = registry.BUILTIN["methods"][name], describe("methods", name)
    assert found.error == ""
    assert found.subject is registry.load("methods", name).Config
    assert found.summary == (sys.modules[entry.config.partition(":")[0]].__doc__ or "").splitlines()[0]
    assert [o.name for o in found.options] == [f.name for f in dataclasses.fields(found.subject)]
    assert all(o.help for o in found.options), "every option has its help"
    assert "arXiv" in found.doc or name in ("full", "linear")


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in ("tasks", "backbones", "experiments") for n in registry.BUILTIN[k]]
)
def test_everything_built_in_is_described(kind: registry.Kind, name: str) -> None:
    found = describe(kind, name)
    assert (found.error, found.subject) == ("", registry.load(kind, name))
    assert found.summary and found.doc
    assert all(o.help for o in found.options), "every option has its help"


def test_prefixes_are_described_without_what_follows() -> None:
    assert [d.name for d in describe_prefixes("methods")] == ["peft:TUNER"]
    assert [d.name for d in describe_prefixes("backbones")] == ["timm:NAME", "runs:RUN"]
    assert not [d.error for kind in ("methods", "backbones") for d in describe_prefixes(kind) if d.error]
