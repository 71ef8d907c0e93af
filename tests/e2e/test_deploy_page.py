"""docs/deploy.md: every command on it works, from a table to predictions in at most eight."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.core.errors import OK
from bench.records.record import load_all

PAGE = Path(__file__).resolve().parents[2] / "docs" / "deploy.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("bench ")]


@pytest.fixture
def data(tmp_path: Path) -> None:
    """The files and folders that the page names, small."""
    rows = [(f"{('good', 'bad')[i % 2]} film {i}", ("good", "bad")[i % 2]) for i in range(40)]
    for name, header, lines in (
        ("reviews.csv", ("review", "sentiment"), rows),
        ("new.csv", ("id", "review"), [(f"a{i}", text) for i, (text, _) in enumerate(rows[:5])]),
    ):
        with (tmp_path / name).open("w", newline="") as stream:
            csv.writer(stream).writerows([header, *lines])
    draw = np.random.default_rng(0)
    for folder in ("birds/crow", "birds/owl", "photos"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(12):
            pixels = draw.integers(0, 256, (40, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i:02}.png")


@pytest.mark.usefixtures("data")
def test_every_command_works(command: Any, tiny_bert: Path, tmp_path: Path) -> None:
    words = commands()
    assert [line[0] for line in words][:4] == ["run", "recommend", "predict", "export"] and len(words) <= 8
    run, seen = "", set[str]()
    for line in words:
        small = [run if word == "RUN" else word for word in line]
        if line[0] == "run":  # a network and a budget that take no time
            network = ("--backbone", "vit", "--set", "backbone.depth=1") if "images:birds" in line else ()
            small = [word if word != "60" else "2" for word in small] + [*(network or ("--backbone", str(tiny_bert)))]
            small += [] if "--max-steps" in line else ["--max-steps", "2"]
        elif line[0] == "export" and "--base" in line:
            run = small[1] = next(
                r.run_id for r in load_all(tmp_path / "runs")[0] if r.spec.method == "lora" and "table" in r.spec.task
            )
        found = command(*small, folder=tmp_path / "runs")
        assert found.code == OK, (small, found.err)
        if line[0] == "run":
            new = [r for r in load_all(tmp_path / "runs")[0] if r.run_id not in seen]
            assert len(new) == len(line[line.index("--method") + 1].split(",")) * (3 if "--seeds" in line else 1)
            run = next(r.run_id for r in new if r.spec.method == "lora")
            seen |= {r.run_id for r in new}
    with (tmp_path / "predictions.csv").open() as stream:
        found = [*csv.DictReader(stream)]
    assert [*found[0]] == ["row", "id", "label", "p_bad", "p_good"] and [one["id"] for one in found][3] == "a3"
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 12 and set(lines[0]) == {"image", "label", "p_crow", "p_owl"}
    assert (
        json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "me/my-model"
    )
    assert (tmp_path / "model" / "README.md").is_file()
