"""docs/spectra.md, executed: what the page tracks, shows and prints is what its commands track, show and print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import OK

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spectra.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands() -> list[list[str]]:
    """The commands of the page, without `bench`."""
    joined = "\n".join(text for kind, text in BLOCKS if not kind).replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in joined.splitlines() if line.startswith("bench ")]


def printed(start: str) -> list[str]:
    """The lines of the output on the page that begins so."""
    [found] = [text for kind, text in BLOCKS if not kind and text.startswith(start)]
    return found.splitlines()


def first_column(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.strip()]


def test_every_command_and_its_output(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [train, *looks] = commands()
    assert [line[0] for line in looks] == ["list", *["spectra"] * 4]
    found = command(*train, folder=tmp_path / "runs")
    assert found.code == OK, found.err
    runs = {record.spec.method: record for record in found.records}
    assert {*runs} == {"full", "lora"}
    header = printed("| method |")[0]
    assert header.split("|")[1:8] == next(line for line in found.out.splitlines() if line.startswith("| method")).split("|")[1:8]

    outputs = []
    for line in looks:
        ids = [word.replace("FULL_RUN", runs["full"].run_id[:6]).replace("LORA_RUN", runs["lora"].run_id) for word in line]
        done = command(*ids, folder=tmp_path / "runs")
        assert done.code == OK, done.err
        outputs.append(done.out)
    of_layers, of_cuts = printed("layer "), printed("k ")
    assert first_column(outputs[1].splitlines())[: len(of_layers)] == first_column(of_layers)
    assert (tmp_path / "runs" / runs["full"].run_id / "spectra.html").is_file()
    assert (tmp_path / "spectra_full.png").read_bytes().startswith(b"\x89PNG")
    assert "factors.0" in outputs[3] and "head" in outputs[3], "of LoRA the factors and the head have gradients"
    assert first_column(outputs[4].splitlines())[:1] == first_column(of_cuts)[:1] == ["k"]
    assert re.search(r"^rank needed: \d+ of 32, ", outputs[4], flags=re.M)

    # what the page says of the numbers, on any machine
    full, lora = runs["full"], runs["lora"]
    effective = {name: np.mean([layer.effective for layer in run.ranks]) for name, run in runs.items()}
    assert effective["lora"] < 8 < effective["full"]
    assert full.truncation.rank_needed < effective["full"], "the score needs fewer directions than ΔW has"
    assert lora.truncation.rank_needed <= 8
    series = {course.of: course for course in full.spectra.series}
    assert series["updates"].steps == tuple(range(0, 301, 20))
    assert max(series["gradients"].effective[1:]) < series["updates"].effective[-1]

    capsys.readouterr()
    [code] = [text for kind, text in BLOCKS if kind == "python"]
    exec(compile(code, str(PAGE), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    expected = printed("lora: effective")
    assert [re.sub(r"[\d.]+", "", line.partition("[")[0]) for line in lines] == [
        re.sub(r"[\d.]+", "", line.partition("[")[0]) for line in expected
    ]
    with np.load(tmp_path / "runs" / full.run_id / "spectra.npz") as stored:
        assert len(stored.files) > 10
