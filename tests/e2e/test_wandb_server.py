"""W&B's own client and API against a small server: what is really sent, and that it is enough to import it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wandb_server import Kept, serving

from bench.cli import main
from bench.records import record

wandb = pytest.importorskip("wandb")

Bench = Callable[..., Any]
KEY = "c0ffee" * 6 + "beef"
GRID = ("--method", "lora,linear", "--task", "glue/cola", "--seeds", "0,1", "--track", "wandb")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    with serving() as kept:
        monkeypatch.setenv("WANDB_BASE_URL", kept.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield kept
        wandb.teardown()


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_what_is_sent_is_enough_for_every_table(
    bench: Bench, server: Kept, mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    outcome = bench(*GRID)
    assert [made.tracking.mode for made in outcome.records] == [mode] * 4
    monkeypatch.delenv("WANDB_MODE")
    if mode == "offline":
        assert not server.runs
        assert main(["wandb", "sync", "--runs", str(outcome.folder)]) == 0
    made = {run.run_id: run for run in outcome.records}
    assert {run.tracking.mode for run in made.values()} == {"online"}
    assert server.runs.keys() == made.keys()
    for run_id, run in made.items():
        opened = server.runs[run_id]
        assert (opened["groupName"], opened["jobType"]) == (run.group_id, run.spec.method)
        sent = json.loads(server.files[run_id][record.FILE])
        sent.pop("digest", None)  # of the file before it was marked as sent
        assert {**sent, "tracking": None} == {**run.to_json(), "tracking": None}
    everything = [*server.bodies, *(body for files in server.files.values() for body in files.values())]
    assert not any(KEY.encode() in body for body in everything), "the key is in headers alone"

    imported = outcome.folder.parent / "imported"
    capsys.readouterr()
    assert main(["import", "wandb", "us/lowrank-bench", "--out", str(imported)]) == 0
    assert "4 imported" in capsys.readouterr().err
    texts: list[str] = []
    for folder in (outcome.folder, imported):
        assert main(["leaderboard", "--runs", str(folder)]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and "lora" in texts[0]


def test_runs_that_cannot_be_had_are_named_and_leave_others_alone(
    server: Kept, make_record: Callable[..., dict[str, Any]], tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    good, lost = make_record(), make_record(spec={"seed": 5})
    for run in (lost, good):
        server.runs[run.run_id] = {}
        server.files[run.run_id] = {record.FILE: json.dumps(run.to_json()).encode()}
    server.runs["f" * 16] = {}
    server.runs["e" * 16] = {}
    server.files["e" * 16] = {record.FILE: b"\xff\xfe\x00"}
    server.lost = {lost.run_id}
    out = tmp_path / "out"
    assert main(["import", "wandb", "us/lowrank-bench", "--out", str(out), "--json"]) == 1
    found = {one["run_id"]: one["state"] for one in json.loads(capsys.readouterr().out)["runs"]}
    assert found == {
        good.run_id: "imported", lost.run_id: "not fetched", "e" * 16: "bad", "f" * 16: "no record",
    }  # fmt: skip
    assert [path.name for path in out.iterdir()] == [good.run_id]


def test_a_run_that_the_server_refuses_stays_offline(
    bench: Bench, server: Kept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = bench("--method", "lora,linear", "--task", "glue/cola", "--track", "wandb")
    monkeypatch.delenv("WANDB_MODE")
    first, second = (made.run_id for made in outcome.records)
    server.refused = {first}
    assert main(["wandb", "sync", "--runs", str(outcome.folder)]) == 1
    assert "1 sent, 1 failed" in capsys.readouterr().err
    modes = {made.run_id: made.tracking.mode for made in outcome.records}
    assert modes == {first: "offline", second: "online"}
