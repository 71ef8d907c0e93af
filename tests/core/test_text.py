"""Text for people: aligned columns, and what is hidden before text is printed, stored or sent."""

from __future__ import annotations

import pytest

from bench.core.errors import BenchError
from bench.core.text import table, without_secrets

HF = "hf_" + "AbCdEfGh12" * 3
HEX = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MY_TOKEN", "plain-looking words"), ("SHORT_KEY", "lora"), ("DB_PASSWORD", 'quo"ted\\one')):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"401 for {HF}: no access", "401 for hf_***: no access"),
        (f"api_key={HEX}", "api_key=***"),
        (f'{{"api_key": "{HEX}"}}', '{"api_key": "***"}'),
        (f"WANDB_API_KEY = '{HEX}'", "WANDB_API_KEY = '***'"),
        (f"wandb_v1_{HEX} and local-{HEX}", "wandb_v1_*** and local-***"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("{'authorization': 'Basic dTpw'}", "{'authorization': 'Basic ***'}"),
        ("see https://ann:pa55@host.org/x?y=1, please", "see https://ann:***@host.org/x?y=1, please"),
        ("--set login.password=geheim12", "--set login.password=***"),
        ("it said plain-looking words again", "it said *** again"),
        ('it said quo"ted\\one again', "it said *** again"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert without_secrets({"a": [text, 1, None], "b": (text,)}) == {"a": [shown, 1, None], "b": [shown]}
    problem = BenchError(text, text, text)
    assert (problem.what, problem.known, problem.todo) == (shown, shown, shown)
    assert problem.args == (shown,)


@pytest.mark.parametrize(
    "text",
    [
        f"commit {HEX}",
        f"sha256:{HEX}{HEX[:24]}",
        "hf_transformers and hf-internal-testing/tiny-random-bert",
        "https://host.org:8080/a@b git@github.com:owner/name ssh://git@host/x",
        "method lora, tokens: 24, the key layer: encoder.layer.0.attention.self.key",
        "password: none",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text


def test_columns_are_aligned_where_characters_are_wide_or_take_no_room() -> None:
    text = table(("name", "n"), [("漢字", "1"), ("W\u0303", "2"), ("plain", "3")])
    assert text.splitlines() == ["name   n", "漢字   1", "W\u0303      2", "plain  3"]
    assert table(("only",), [("one",), ("column",)]) == "only\none\ncolumn"
    assert table(("no", "rows"), [], indent=" ") == " no  rows"
