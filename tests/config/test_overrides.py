"""`--set`: values are typed by their annotations, everything else is an error that helps."""

from __future__ import annotations

import dataclasses

import pytest

from bench.config import help as describe_module
from bench.config.help import Description, Option
from bench.config.overrides import resolve, resolve_all, show, typed
from bench.config.sections import NAMESPACES
from bench.core.errors import EnvironmentProblem, UsageError


def test_without_settings_every_option_has_its_default() -> None:
    found = resolve([], "deeplora")
    assert [*found] == ["method", *NAMESPACES]
    for name, kind in NAMESPACES.items():
        assert found[name] == dataclasses.asdict(kind())
    assert found["method"]["rank"] == 8


def test_values_are_typed_and_reach_their_place() -> None:
    settings = ["method.rank=none", "head.trainable=no", "optim.eps=1", "method.target=a,b=c", "optim.schedule=cosine"]
    found = resolve(settings, "deeplora")
    assert found["method"]["rank"] is None
    assert found["head"]["trainable"] is False
    assert (found["optim"]["eps"], type(found["optim"]["eps"])) == (1.0, float)
    assert found["method"]["target"] == "a,b=c", "commas and = belong to the value"
    assert found["optim"]["schedule"] == "cosine"


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("8", "int", 8),
        ("-3", "int", -3),
        ("8", "float", 8.0),
        ("1e-3", "float", 0.001),
        ("TRUE", "bool", True),
        ("0", "bool", False),
        ("yes", "bool", True),
        ("", "str", ""),
        ("none", "int | None", None),
        ("7", "None | int", 7),
        ("7", "Optional[int]", 7),
        ("none", "typing.Optional[int]", None),
        ("0.5", "Union[int, float]", 0.5),
        ("5", "int | float", 5),
        ("8", "str | int", 8),
        ("qv", "str | int", "qv"),
        ("none", "str | None", None),
        ("a", "Literal['a', 'b']", "a"),
        ("16", "Literal[8, 16]", 16),
        ("none", "Literal['a'] | None", None),
        ("none", "Literal['standard', 'none']", "none"),
        ("3", "Literal['auto'] | int", 3),
        ("true", "Literal[True, 'a']", True),
    ],
)
def test_typed(text: str, annotation: str, value: object) -> None:
    found = typed(text, annotation)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "annotation", "expected"),
    [
        ("8.0", "int", "a whole number"),
        ("abc", "float", "a finite number"),
        ("nan", "float", "a finite number"),
        ("-inf", "float", "a finite number"),
        ("2", "bool", "true or false"),
        ("", "int", "a whole number"),
        ("x", "int | None", "a whole number or none"),
        ("c", "Literal['a', 'b']", "a or b"),
        ("c", "tuple[int, ...]", "not settable"),
    ],
)
def test_wrong_type_names_the_expected_one(text: str, annotation: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        typed(text, annotation)


@pytest.mark.parametrize(
    ("settings", "what", "known", "todo"),
    [
        (["method.rnk=8"], "'method.rnk'", "method.rank", "Did you mean 'method.rank'?"),
        (["method.eps=1"], "'method.eps'", "method.rank", "Did you mean 'optim.eps'?"),
        (["head.trainible=no"], "'head.trainible'", "head.pooling", "Did you mean 'head.trainable'?"),
        (["meth.rank=8"], "namespace 'meth'", "method, head", "Did you mean 'method'?"),
        (["zzz.x=8"], "namespace 'zzz'", "method, head", "bench show"),
        (["rank=8"], "namespace.key=value", "method, head", "--set method.rank=8"),
        (["method.rank"], "namespace.key=value", "method", "--set"),
        (["method.=8"], "namespace.key=value", "method", "--set"),
        (["method.rank=x"], "expected a whole number", "method.rank: int, default 8.", ""),
        (["method.rank="], "expected a whole number", "", ""),
        (["optim.eps=inf"], "expected a finite number", "optim.eps: float, default 1e-08.", ""),
        (["method.rank=8", "method.rank=8"], "given twice", "'8'", "Keep one"),
    ],
)
def test_errors_name_what_is_known_and_what_to_do(settings: list[str], what: str, known: str, todo: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(settings, "lora")
    assert what in caught.value.what
    assert known in caught.value.known
    assert todo in caught.value.todo


def test_a_key_goes_to_the_methods_that_know_it() -> None:
    found = resolve_all(["method.rank=4", "method.depth=2"], ["full", "lora", "deeplora"])
    assert found["full"]["method"] == {}
    assert (found["lora"]["method"]["rank"], found["deeplora"]["method"]["rank"]) == (4, 4)
    assert "depth" not in found["lora"]["method"]
    assert found["deeplora"]["method"]["depth"] == 2


def test_a_key_that_no_method_knows_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"method\.gama"):
        resolve_all(["method.gama=1"], ["full", "deeplora"])
    with pytest.raises(UsageError, match=r"method\.rank") as caught:
        resolve_all(["method.rank=1"], ["full"])
    assert "no options" in caught.value.known
    with pytest.raises(UsageError, match=r"method\.rank") as caught:
        resolve_all(["method.rank=1"], ["full", "linear"])
    assert caught.value.known == "options of method full or linear: method.standardise"


def _pretend(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    found = dataclasses.replace(Description(name="mine"), **changes)
    monkeypatch.setattr(describe_module, "describe", lambda kind, name: found)


def test_a_whole_default_of_a_float_is_a_float(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, options=(Option("alpha", "float", 16, ""), Option("n", "int | float", 16, "")))
    found = resolve([], "mine")["method"]
    assert [type(value) for value in found.values()] == [float, int]


def test_an_option_without_default_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, options=(Option("path", "str", None, "Where.", required=True),))
    assert resolve(["method.path=x"], "mine")["method"] == {"path": "x"}
    with pytest.raises(UsageError, match=r"method\.path has no default"):
        resolve([], "mine")


def test_a_method_that_cannot_be_read_is_an_environment_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, error="acme:Mine: SyntaxError")
    with pytest.raises(EnvironmentProblem, match="SyntaxError"):
        resolve([], "mine")


def test_values_are_shown_as_they_are_written() -> None:
    assert [show(v) for v in (None, True, False, 1, 0, 1e-8, "qv")] == [
        "none",
        "true",
        "false",
        "1",
        "0",
        "1e-08",
        "qv",
    ]
