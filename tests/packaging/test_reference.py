"""docs/commands.md and docs/options.md are what their scripts print, and leave nothing out that the commands say."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cli import VERBS, main

DOCS = Path(__file__).resolve().parents[2] / "docs"


def read(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """The script of that name as a module, imported as `python docs/NAME.py` would."""
    monkeypatch.syspath_prepend(str(DOCS))
    spec: Any = importlib.util.spec_from_file_location(request.param, DOCS / f"{request.param}.py")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("commands", None)


@pytest.mark.parametrize("made", ["commands", "options"], indirect=True)
def test_the_page_is_what_its_script_writes(made: Any) -> None:
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), f"run `python docs/{made.PAGE.stem}.py`"


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_of_the_help_is_in_the_section_of_its_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = read("commands")
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, flags=re.M | re.S))
    assert main([verb, "--help"]) == 0
    helped = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", capsys.readouterr().out, flags=re.M)) - {"--help"}
    there = sections[f"bench {verb}"] + sections["Flags of every verb"]
    there += sections["bench run"] if verb == "plan" else ""
    assert helped and helped <= set(re.findall(r"<code>(?:-\w</code>, <code>)?(--[a-z-]+)", there))


@pytest.mark.parametrize(("name", "kind"), [("lora", "method"), ("table", "task"), ("vit", "backbone"), ("slurm", "")])
def test_every_option_that_show_lists_is_there(name: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    lines = [line.split("|") for line in read("options").splitlines() if line.count("|") == 6]
    rows = [[html.unescape(re.sub("<.*?>", "", column)).strip() for column in line] for line in lines]
    listed = {kind or name: value["options"], **value.get("shared_options", {})}
    for space, options in listed.items():
        for option in options:
            named = [row for row in rows if row[1] == f"{space}.{option['name']}"]
            found = [row for row in named if option["help"].replace("`", "") in row[5]]
            default = option["default"]
            written = "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
            assert any(row[3] == (written or "empty") for row in found), (option, named)
