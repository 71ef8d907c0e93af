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


def first_words(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.strip()]


def without_numbers(lines: list[str]) -> list[str]:
    return [re.sub(r"[\d.]+", "", line.partition("[")[0]) for line in lines]


def test_every_command_and_its_output(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    [train, *looks] = commands()
    found = command(*train, folder=folder)
    assert found.code == OK, found.err
    [header] = (line for line in found.out.splitlines() if line.startswith("| method"))
    assert [*map(str.split, header.split("|"))] == [*map(str.split, printed("| method |")[0].split("|"))]
    full, lora = sorted(found.records, key=lambda record: record.spec.method)

    ids = {"FULL_RUN": full.run_id[:6], "LORA_RUN": lora.run_id}
    outputs = list[list[str]]()
    for line in looks:
        done = command(*(ids.get(word, word) for word in line), folder=folder)
        assert done.code == OK, done.err
        outputs.append(done.out.splitlines())
    _runs, layers, _drawn, gradients, cuts = outputs
    assert first_words(layers)[: len(printed("layer "))] == first_words(printed("layer "))
    assert (folder / full.run_id / "spectra.html").is_file()
    assert (tmp_path / "spectra_full.png").read_bytes().startswith(b"\x89PNG")
    named = first_words(gradients)
    assert "head" in named and "model.blocks.0.attn.qkv.query.factors.0" in named, "what has gradients"
    assert cuts[0].split() == printed("k ")[0].split()
    assert any(re.match(r"rank needed: \d+ of 32, ", line) for line in cuts)

    # what the page says of the numbers, on any machine
    effective = np.mean([layer.effective for layer in full.ranks])
    assert full.truncation.rank_needed < effective, "the score needs fewer directions than ΔW has"
    assert np.mean([layer.effective for layer in lora.ranks]) < 8 < effective
    series = {course.of: course for course in full.spectra.series}
    assert series["updates"].steps == tuple(range(0, 301, 20))
    assert max(series["gradients"].effective[1:]) < series["updates"].effective[-1]

    capsys.readouterr()
    [code] = (text for kind, text in BLOCKS if kind == "python")
    exec(compile(code, str(PAGE), "exec"), {})
    assert without_numbers(capsys.readouterr().out.splitlines()) == without_numbers(printed("lora: effective"))
    with np.load(folder / full.run_id / "spectra.npz") as stored:
        assert len(stored.files) > 10
