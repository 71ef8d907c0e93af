"""`--track wandb`: an offline mirror without a key, and a failure of the mirror that fails nothing else."""

from __future__ import annotations

import json
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import tracking

wandb = pytest.importorskip("wandb")

Bench = Callable[..., Any]
TWO = ("--method", "lora,linear", "--task", "glue/cola", "--track", "wandb")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """Whether anyone, W&B's own processes included, has knocked at W&B's server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield lambda: bool(select.select([server], [], [], 0.2)[0])
    wandb.teardown()


def test_offline_without_a_key(
    bench: Bench, asked: Callable[[], bool], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    outcome = bench(*TWO, "--json")
    wandb.teardown()
    assert outcome.code == 0
    assert not asked(), "no network where there is no key"
    assert capfd.readouterr() == ("", ""), "W&B's processes say nothing"
    assert json.loads(outcome.out)["runs"] == outcome.records, "nothing but the result on stdout"
    assert "wandb" not in outcome.err.lower()
    assert not (tmp_path / "wandb").exists(), "nothing is left where the user stands"
    for made in outcome.records:
        assert made["state"] == "done"
        tracking = made["tracking"]
        assert {**tracking, "directory": None} == {
            "kind": "wandb", "mode": "offline", "id": made["run_id"], "error": None, "directory": None,
        }  # fmt: skip
        folder = outcome.folder / made["run_id"] / "wandb" / tracking["directory"]
        raw = (folder / f"run-{made['run_id']}.wandb").read_bytes()
        assert made["group_id"].encode() in raw
        assert b"lowrank-bench" in raw
    _check_summaries(outcome)


def _check_summaries(outcome: Any) -> None:
    """What W&B's own reader finds in its files, against the records."""
    for made in outcome.records:
        found = _inspect(outcome.folder / made["run_id"] / "wandb" / made["tracking"]["directory"])
        assert found["run_id"] == made["run_id"]
        assert found["project"] == "lowrank-bench"
        assert set(found["tags"]) == {made["spec"]["method"], "glue/cola", "tiny-bert", "directory"}
        assert found["config"]["lr"] == made["lr"]
        summary, primary = found["summary"], made["metrics"]["primary"]
        assert summary["primary"] == {"max": pytest.approx(primary["value"])}
        assert summary["dev/matthews"] == pytest.approx(primary["value"])
        assert summary["params/trainable"] == made["params"]["trainable"]
        assert summary["train/loss"]["min"] == pytest.approx(min(point["loss"] for point in made["curve"]))
        ranks = made["ranks"]
        assert ("rank/effective" in summary) == bool(ranks)
        if ranks:
            mean = sum(rank["effective"] for rank in ranks) / len(ranks)
            assert summary["rank/effective"] == pytest.approx(mean)
            assert summary["ranks"]["nrows"] == len(ranks)


def _inspect(folder: Path) -> dict[str, Any]:
    program = shutil.which("wandb", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("the program wandb is not beside Python; the files themselves were checked")
    words = [program, "leet", "inspect", "--summary", "--json", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this wandb cannot inspect a run, the files themselves were checked: {done.stderr.strip()[:100]}")
    return json.loads(done.stdout)


def _refuse(*args: Any, **options: Any) -> Any:
    raise RuntimeError("no room left\nin the cloud")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of every `wandb.init`, all of which fail."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **options: (found.append(options), _refuse()))
    return found


def test_a_failure_is_a_warning_and_stays_in_the_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", _refuse)
    outcome = bench(*TWO)
    assert outcome.code == 0
    assert outcome.err.count("warning: W&B") == 2
    assert "RuntimeError: no room left" in outcome.err
    for made in outcome.records:
        assert (made["state"], made["tracking"]["error"]) == ("done", "RuntimeError: no room left")
        assert made["metrics"]


def test_a_wandb_that_cannot_be_imported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    outcome = bench(*TWO)
    assert outcome.code == 0
    assert {made["state"] for made in outcome.records} == {"done"}
    assert all("wandb" in made["tracking"]["error"] for made in outcome.records)


def test_a_failure_half_way_leaves_no_run_open(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[FakeRun] = []

    class FakeRun:
        dir = "somewhere/files"
        finished = False

        def __init__(self) -> None:
            opened.append(self)

        define_metric = staticmethod(_refuse)

        def finish(self) -> None:
            self.finished = True

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", lambda **options: FakeRun())
    assert bench(*TWO).code == 0
    assert [run.finished for run in opened] == [True, True], "else the next run is logged into this one"


@pytest.mark.parametrize(
    ("key", "chosen", "mode"),
    [("a" * 40, "", "online"), ("a" * 40, "offline", "offline"), ("", "online", "online"), ("", "", "offline")],
)
def test_online_with_a_key_and_as_wandb_mode_says(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seen: list[dict[str, Any]], key: str, chosen: str, mode: str
) -> None:
    monkeypatch.setattr(tracking, "silence", lambda endpoint: "")
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_MODE", chosen)
    outcome = bench("--method", "linear", "--task", "glue/cola", "--track", "wandb")
    assert [options["mode"] for options in seen] == [mode]
    assert outcome.only()["tracking"]["mode"] == mode


def test_a_key_and_a_server_that_is_not_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seen: list[dict[str, Any]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    outcome = bench("--method", "linear", "--task", "glue/cola", "--track", "wandb")
    assert [options["mode"] for options in seen] == ["offline"]
    assert "warning: 127.0.0.1: Connection refused; the W&B run is offline" in outcome.err


def test_a_run_that_is_done_already_is_mirrored_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seen: list[dict[str, Any]], fitted: list[Any]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("--method", "linear", "--task", "glue/cola")
    bench(*words)
    assert not seen
    for times in (1, 2):  # the refusal is in the record, so it is tried again
        assert bench(*words, "--track", "wandb").only()["tracking"]["error"] == "RuntimeError: no room left"
        assert len(seen) == times
    assert len(fitted) == 1


def test_off_by_default(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", lambda **options: pytest.fail("W&B is asked for, never assumed"))
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    outcome = bench("--method", "linear", "--task", "glue/cola")
    assert outcome.only()["tracking"] is None
