"""Options: values read from text by their types, limits checked, everything else an error that helps."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Optional, Union

import pytest

from bench.config.options import Config, build, describe_type, option, options_of, read_value, show
from bench.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Toy(Config):
    namespace: ClassVar[str] = "toy"

    rank: int = option(8, "Width of\n the update.", at_least=1, at_most=64)
    scale: float = option(16, "Scale.", above=0)
    width: int | None = option(None, "May be none.", at_least=2)
    form: Literal["x", "y"] = option("x", "Which form.")
    depth: int = option(3, "Depth.", used_with={"form": ("y",)})


@dataclass(frozen=True, kw_only=True)
class Child(Toy):
    rank: int = option(2, "Another default.")
    path: str = option(help="Where.")


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("8", int, 8),
        ("-3", int, -3),
        ("8", float, 8.0),
        ("1e-3", float, 0.001),
        ("TRUE", bool, True),
        ("0", bool, False),
        ("yes", bool, True),
        ("", str, ""),
        ("none", int | None, None),
        ("7", None | int, 7),
        ("7", Optional[int], 7),  # noqa: UP045
        ("none", typing.Optional[int], None),  # noqa: UP045
        ("0.5", Union[int, float], 0.5),  # noqa: UP007
        ("5", int | float, 5),
        ("8", str | int, 8),
        ("qv", str | int, "qv"),
        ("none", str | None, None),
        ("a", Literal["a", "b"], "a"),
        ("16", Literal[8, 16], 16),
        ("none", Literal["a"] | None, None),
        ("none", Literal["standard", "none"], "none"),
        ("3", Literal["auto"] | int, 3),
        ("true", Literal[True, "a"], True),
        (8, int, 8),
        (8, float, 8.0),
        (None, int | None, None),
        (True, bool, True),
        (0.5, float, 0.5),
    ],
)
def test_values_are_read_by_type(text: Any, hint: Any, value: object) -> None:
    found = read_value(text, hint)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        ("8.0", int, "a whole number"),
        ("abc", float, "a finite number"),
        ("nan", float, "a finite number"),
        ("-inf", float, "a finite number"),
        ("2", bool, "true or false"),
        ("", int, "a whole number"),
        ("x", int | None, "a whole number or none"),
        ("c", Literal["a", "b"], "a or b"),
        ("c", tuple[int, ...], "not settable"),
        (0.5, int, "a whole number"),
        (True, int, "a whole number"),
        (1, bool, "true or false"),
        (float("nan"), float, "a finite number"),
        (None, int, "a whole number"),
        (3, str, "a text"),
    ],
)
def test_a_wrong_type_names_the_expected_one(text: Any, hint: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        read_value(text, hint)


def test_options_are_described_in_the_order_of_their_fields() -> None:
    found = options_of(Child)
    assert [(o.name, o.type, o.default, o.help, o.required) for o in found.values()] == [
        ("rank", "int", 2, "Another default.", False),
        ("scale", "float", 16, "Scale.", False),
        ("width", "int or none", None, "May be none.", False),
        ("form", "x|y", "x", "Which form.", False),
        ("depth", "int", 3, "Depth.", False),
        ("path", "str", None, "Where.", True),
    ]
    assert options_of(Toy)["rank"].help == "Width of the update."


@pytest.mark.parametrize(
    ("given", "what", "known"),
    [
        ({"rank": 0}, "toy.rank=0", "it must be between 1 and 64"),
        ({"rank": 65}, "toy.rank=65", "it must be between 1 and 64"),
        ({"scale": 0}, "toy.scale=0.0", "it must be more than 0"),
        ({"width": 1}, "toy.width=1", "it must be at least 2"),
        ({"depth": 4}, "toy.depth=4 has no effect with toy.form=x", "toy.form = y"),
    ],
)
def test_limits_are_checked(given: dict[str, Any], what: str, known: str) -> None:
    for make in (lambda: Toy(**given), lambda: build(Toy, given)):
        with pytest.raises(UsageError) as caught:
            make()
        assert caught.value.what == what
        assert known in caught.value.known


def test_values_within_the_limits_pass() -> None:
    assert Toy(rank=64, scale=1e-9, width=2, form="y", depth=4).rank == 64
    assert Toy(depth=3).depth == 3, "the default is no choice"


def test_a_whole_number_of_a_float_is_a_float() -> None:
    for made in (Toy(), Toy(scale=16), build(Toy, {}), build(Toy, {"scale": "16"}), build(Toy, {"scale": 16})):
        assert made.to_json() == {"rank": 8, "scale": 16.0, "width": None, "form": "x", "depth": 3}
        assert type(made.scale) is float


def test_an_option_without_default_must_be_given() -> None:
    assert build(Child, {"path": "x"}).path == "x"
    with pytest.raises(UsageError, match=r"toy\.path has no default"):
        build(Child, {})


def test_a_plain_dataclass_can_be_built_too() -> None:
    @dataclass(frozen=True)
    class Plain:
        size: int = 4

    assert build(Plain, {"size": "5"}).size == 5
    with pytest.raises(UsageError, match=r"--set mine\.size=x: expected a whole number"):
        build(Plain, {"size": "x"}, namespace="mine")


def test_types_are_written_as_help_shows_them() -> None:
    hints = (int, float | None, Literal["a", "b"], Literal["auto"] | int, str)
    assert [describe_type(hint) for hint in hints] == ["int", "float or none", "a|b", "auto or int", "str"]


def test_values_are_shown_as_they_are_written() -> None:
    shown = [show(value) for value in (None, True, False, 1, 0, 1e-8, "qv")]
    assert shown == ["none", "true", "false", "1", "0", "1e-08", "qv"]
