"""The status of a folder: states follow from records and claims, and only what has changed is read again."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import pytest

from bench.core.errors import ENVIRONMENT, EnvironmentProblem
from bench.records import brief, claims, progress, record, status
from bench.records.claims import Claim, Claims
from bench.records.record import ERROR_LOG, TRIALS, Record
from bench.records.status import STATES, ClaimedRun, Wanted, Watcher

ERROR = {"what": "it broke\nhere", "known": "", "todo": ""}
BARE: dict[str, Any] = {"metrics": None, "params": None, "cost": None, "ranks": [], "curve": []}


@pytest.fixture
def add(tmp_path: Path, make_record: Callable[..., Record]) -> Callable[..., Path]:
    """`add("failed", seed=3, method="full")`: the folder of a run in that state."""

    def made(state: str, /, *, parent: Path = tmp_path, changes: dict[str, Any] | None = None, **spec: Any) -> Path:
        error = {"error": ERROR} if state in status.FAILED else {}
        one = make_record(state=state, spec=spec, **({} if state == "done" else BARE) | error | (changes or {}))
        folder = record.folder(parent, one.run_id)
        record.write(one, folder)
        return folder

    return made


def claim(folder: Path, *, age_s: float = 0, **changes: Any) -> Claim:
    """Claim a run for another machine, which touched the claim so long ago."""
    made = Claim(owner="me", host="node", pid=7, machine="another", born="1", since=datetime.now(UTC).isoformat())
    made = msgspec.structs.replace(made, **changes)
    folder.mkdir(exist_ok=True)
    (folder / claims.FILE).write_bytes(msgspec.json.encode(made))
    moment = time.time() - age_s
    os.utime(folder / claims.FILE, (moment, moment))
    return made


def step(folder: Path, step: int = 30, **changes: Any) -> None:
    value = {"owner": "me", "step": step, "steps": 120, "loss": 0.5, "train_s": 60.0} | changes
    (folder / progress.FILE).write_text(json.dumps(value))


def counted(states: dict[str, int]) -> dict[str, int]:
    return {state: number for state, number in states.items() if number}


def test_counts_of_every_state(tmp_path: Path, add: Callable[..., Path]) -> None:
    written = [(state, seed) for state in record.State.__args__ for seed in range(2)]
    for number, (state, _) in enumerate(written):
        add(state, seed=number)
    (tmp_path / "broken").mkdir()
    (tmp_path / "notes.txt").write_text("of the user")
    expected = Counter("interrupted" if state == "running" else state for state, _ in written)
    seen = Watcher(tmp_path).look()
    assert counted(seen.runs) == expected
    assert [*seen.runs] == [*seen.trials] == [*STATES]
    assert counted(seen.trials) == {} and seen.claimed == [] and seen.hosts == {}


@pytest.mark.parametrize("state", ["running", "cancelled", "preempted", "failed", None])
def test_a_claimed_run_is_running_whatever_its_record_says(
    tmp_path: Path, add: Callable[..., Path], state: str | None
) -> None:
    folder = add(state, seed=3) if state else tmp_path / ("a" * 16)
    claim(folder)
    seen = Watcher(tmp_path).look()
    assert counted(seen.runs) == {"running": 1} and seen.hosts == {"node": 1} and seen.failures == []
    [run] = seen.claimed
    assert (run.run_id, run.host, run.pid, run.heartbeat) == (folder.name, "node", 7, "")
    assert (run.method, run.task, run.seed) == (("lora", "glue/cola", 3) if state else (None, None, None))


def test_a_done_run_that_is_still_mirrored_is_done(tmp_path: Path, add: Callable[..., Path]) -> None:
    claim(add("done"))
    seen = Watcher(tmp_path).look()
    assert counted(seen.runs) == {"done": 1} and seen.claimed == []


@pytest.mark.parametrize("state", ["running", None])
def test_without_a_heartbeat_it_was_interrupted(tmp_path: Path, add: Callable[..., Path], state: str | None) -> None:
    folder = add(state) if state else tmp_path / ("a" * 16)
    claim(folder, age_s=claims.STALE_S + 1)
    step(folder)
    seen = Watcher(tmp_path).look()
    assert counted(seen.runs) == {"interrupted": 1} and seen.hosts == {}
    [run] = seen.claimed
    assert (run.step, run.left_s) == (30, None), "nothing is left of what has stopped"
    assert run.heartbeat == "stale" and claims.STALE_S < run.heartbeat_s < claims.STALE_S + 60
    claim(folder, age_s=claims.STALE_S - 30)
    assert counted(Watcher(tmp_path).look().runs) == {"running": 1}


def test_a_stale_claim_on_a_run_that_ended_says_nothing(tmp_path: Path, add: Callable[..., Path]) -> None:
    claim(add("preempted"), age_s=1e4)
    seen = Watcher(tmp_path).look()
    assert counted(seen.runs) == {"preempted": 1} and seen.claimed == []


def test_the_run_says_after_which_time_its_claim_is_stale(tmp_path: Path, add: Callable[..., Path]) -> None:
    folder = add("running", options={"runtime": {"claim_s": 600}})
    for age_s, state in ((500, "running"), (650, "interrupted")):
        claim(folder, age_s=age_s)
        assert counted(Watcher(tmp_path).look().runs) == {state: 1}


def test_a_process_of_this_machine_that_has_ended_is_gone_at_once(tmp_path: Path, add: Callable[..., Path]) -> None:
    held = Claims().take(add("running"))
    assert held
    assert counted(Watcher(tmp_path).look().runs) == {"running": 1}
    ended = subprocess.Popen(["true"])
    ended.wait()
    claim(held.folder, machine=held.claim.machine, pid=ended.pid)
    seen = Watcher(tmp_path).look()
    assert counted(seen.runs) == {"interrupted": 1} and [run.heartbeat for run in seen.claimed] == ["gone"]


def test_a_half_written_claim_is_somebody_s(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 16)
    folder.mkdir()
    (folder / claims.FILE).write_text('{"owner": "m')
    seen = Watcher(tmp_path).look()
    assert counted(seen.runs) == {"running": 1} and seen.hosts == {"": 1}
    assert [(run.host, run.pid, run.step) for run in seen.claimed] == [(None, None, None)]


def test_from_its_second_touch_on_a_claim_is_timed_by_one_clock(
    tmp_path: Path, add: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the file system is an hour behind: at first the claim seems stale."""
    now = [0.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    folder = add("running")
    claim(folder, age_s=3600)
    watcher = Watcher(tmp_path)
    assert [run.heartbeat for run in watcher.look().claimed] == ["stale"]
    now[0] = 10
    claim(folder, age_s=3590)
    assert [(run.heartbeat, run.heartbeat_s) for run in watcher.look().claimed] == [("", 0)]
    now[0] = 10 + claims.STALE_S - 1
    assert [(run.heartbeat, run.heartbeat_s) for run in watcher.look().claimed] == [("", claims.STALE_S - 1)]
    now[0] = 10 + claims.STALE_S
    assert [run.heartbeat for run in watcher.look().claimed] == ["stale"]


def test_progress_of_a_running_run(tmp_path: Path, add: Callable[..., Path]) -> None:
    folder = add("running")
    claim(folder, since=datetime.fromtimestamp(time.time() - 90, UTC).isoformat(timespec="seconds"))
    step(folder)
    [run] = Watcher(tmp_path).look().claimed
    assert (run.step, run.steps, run.loss, run.left_s) == (30, 120, 0.5, 180)
    assert run.elapsed_s is not None and 89 <= run.elapsed_s < 150
    step(folder, owner="the one before")
    [run] = Watcher(tmp_path).look().claimed
    assert (run.step, run.steps, run.loss, run.left_s) == (None, 150, None, None), "the steps of its specification"


def test_time_left_from_finished_runs_that_differ_by_seed_alone(tmp_path: Path, add: Callable[..., Path]) -> None:
    for seed, seconds in enumerate((100.0, 140.0)):
        add("done", seed=seed, changes={"cost": {"train_s": seconds, "eval_s": 10.0}})
    add("done", method="full", changes={"cost": {"train_s": 1e4}})
    folder = add("running", seed=2)
    claim(folder, since=datetime.fromtimestamp(time.time() - 60, UTC).isoformat())
    [run] = Watcher(tmp_path).look().claimed
    assert run.left_s is not None and run.elapsed_s is not None
    assert run.left_s == pytest.approx(fmean((110, 150)) - run.elapsed_s, abs=0.2)
    claim(folder, since=datetime.fromtimestamp(time.time() - 999, UTC).isoformat())
    assert [run.left_s for run in Watcher(tmp_path).look().claimed] == [0]
    step(folder)
    assert [run.left_s for run in Watcher(tmp_path).look().claimed] == [180], "its own speed says more"
    for since in ("", "soon", "9999-99-99", "0001-01-01T00:00:00+23:59"):
        claim(folder, since=since)
        (folder / progress.FILE).unlink(missing_ok=True)
        [run] = Watcher(tmp_path).look().claimed
        assert isinstance(run, ClaimedRun)


def test_living_claims_come_first_and_hosts_have_those_alone(tmp_path: Path, add: Callable[..., Path]) -> None:
    moments = [(5, 0, "a"), (50, 0, "b"), (500, 99, "b"), (20, 0, "b")]
    for seed, (elapsed, age, host) in enumerate(moments):
        since = datetime.fromtimestamp(time.time() - elapsed, UTC).isoformat()
        claim(add("running", seed=seed), age_s=age, host=host, since=since)
    seen = Watcher(tmp_path).look()
    assert [run.seed for run in seen.claimed] == [1, 3, 0, 2]
    assert seen.hosts == {"a": 1, "b": 2}


def test_trials_are_apart(tmp_path: Path, add: Callable[..., Path]) -> None:
    add("done", seed=0)
    add("done", seed=1, parent=tmp_path / TRIALS, holdout=100)
    add("diverged", seed=2, parent=tmp_path / TRIALS, holdout=100)
    add("failed", seed=3, holdout=100)
    claim(tmp_path / TRIALS / ("a" * 16))
    seen = Watcher(tmp_path).look()
    assert counted(seen.runs) == {"done": 1}
    assert counted(seen.trials) == {"done": 1, "diverged": 1, "failed": 1, "running": 1}
    assert (seen.last_hour, [one.runs for one in seen.speed]) == (1, [1])
    assert [run.trial for run in (*seen.claimed, *seen.failures)] == [True] * 3


def test_failures_the_latest_first_with_the_first_line_and_the_log(tmp_path: Path, add: Callable[..., Path]) -> None:
    folders = {state: add(state, seed=seed) for seed, state in enumerate(("diverged", "failed", "oom"))}
    trial = add("failed", seed=9, parent=tmp_path / TRIALS, holdout=100)
    for age, folder in enumerate((*folders.values(), trial)):
        moment = time.time() - age
        os.utime(folder / record.FILE, (moment, moment))
    for folder in (folders["failed"], trial):
        (folder / ERROR_LOG).touch()
    found = Watcher(tmp_path).look().failures
    assert [(one.state, one.seed, one.error) for one in found] == [
        ("diverged", 0, "it broke"),
        ("failed", 1, "it broke"),
        ("oom", 2, "it broke"),
        ("failed", 9, "it broke"),
    ]
    assert [one.log and (tmp_path / one.log).is_file() for one in found] == [None, True, None, True]


def test_speed_and_the_last_hour(tmp_path: Path, add: Callable[..., Path]) -> None:
    took = {("full", "glue/cola"): [10.0, 20.0], ("lora", "glue/cola"): [4.0], ("lora", "glue/rte"): [6.0, 7.0, 8.0]}
    ages = iter((0, 3590, 3610, 1, 2, 1e6))
    for (method, task), seconds in took.items():
        for seed, train_s in enumerate(seconds):
            cost = {"cost": {"train_s": train_s, "eval_s": 1.0}}
            folder = add("done", seed=seed, method=method, task=task, changes=cost)
            moment = time.time() - next(ages)
            os.utime(folder / record.FILE, (moment, moment))
    add("failed", seed=99)
    seen = Watcher(tmp_path).look()
    assert seen.last_hour == 4
    found = {(one.method, one.task): (one.runs, one.mean_s) for one in seen.speed}
    assert found == {key: (len(seconds), fmean(seconds) + 1) for key, seconds in took.items()}


def planned(folder: Path, **changes: Any) -> Wanted:
    """The run of a plan whose record is in a folder."""
    one = record.read(folder / record.FILE)
    made = Wanted(
        **{"run_id": one.run_id, "group_id": one.group_id, "trial": bool(one.spec.holdout)},
        **{"method": one.spec.method, "task": one.spec.task},
    )
    return dataclasses.replace(made, **changes)


def test_how_many_of_a_plan_are_left(tmp_path: Path, add: Callable[..., Path]) -> None:
    folders = [add(state, seed=seed) for seed, state in enumerate(("done", "failed", "cancelled"))]
    add("done", seed=7, task="glue/rte")
    wanted = [*map(planned, folders), planned(folders[0], run_id="f" * 16)]
    seen = Watcher(tmp_path, wanted).look()
    assert seen.left == 2, "the cancelled one, and one that has not begun"
    assert counted(seen.runs) == {"done": 1, "failed": 1, "cancelled": 1, "waiting": 1}, "and none of another plan"
    assert [(one.task, one.runs) for one in seen.speed] == [("glue/cola", 1)]
    seen = Watcher(tmp_path).look()
    assert (seen.left, seen.left_s, seen.left_unknown) == (None, None, None)
    assert seen.runs["waiting"] == 0 and seen.runs["done"] == 2


def test_the_time_that_is_left_of_a_plan(tmp_path: Path, add: Callable[..., Path]) -> None:
    took = {"cost": {"train_s": 99.0, "eval_s": 1.0}}
    done, running = add("done", seed=0, changes=took), add("running", seed=1)
    claim(running, since=datetime.now(UTC).isoformat())
    step(running)  # 30 of 120 steps in 60 s
    other = add("done", lr=0.5, changes={"lr": 0.5, "cost": {"train_s": 299.0, "eval_s": 1.0}})
    sibling = planned(done, run_id="a" * 16)
    alike = planned(done, run_id="b" * 16, group_id="0" * 16)
    strange = planned(done, run_id="c" * 16, group_id="1" * 16, method="full")

    def left(*wanted: Wanted) -> tuple[Any, ...]:
        seen = Watcher(tmp_path, wanted).look()
        return seen.left, seen.left_s, seen.left_unknown

    assert left(planned(done)) == (0, 0, 0)
    assert left(planned(done), sibling) == (1, 100, 0), "as long as one that differs by seed"
    assert left(planned(done), planned(other), alike) == (1, 200, 0), "the mean of the method on the task"
    assert left(planned(done), strange) == (1, 0, 1)
    assert left(planned(done), planned(running), sibling, strange) == (3, 180 + 100, 1), "by its own speed"


def test_trials_of_a_plan(tmp_path: Path, add: Callable[..., Path]) -> None:
    place = tmp_path / TRIALS
    done = add("done", parent=place, holdout=5, lr=0.1, changes={"lr": 0.1})
    beyond = add("failed", parent=place, holdout=5, lr=0.2)
    add("done", parent=place, holdout=5, task="glue/rte")
    run = planned(done, run_id="d" * 16, group_id="d" * 16, trial=False)
    wanted = [run, planned(done), planned(done, run_id="e" * 16)]
    watcher = Watcher(tmp_path, wanted)
    seen = watcher.look()
    assert counted(seen.runs) == {"waiting": 1} and seen.left == 1
    assert counted(seen.trials) == {"done": 1, "waiting": 1, "failed": 1}, "the one beyond the candidates too"
    assert [one.run_id for one in seen.failures] == [beyond.name]
    assert seen.left_s == pytest.approx(39.3) and seen.left_unknown == 1, "a trial says nothing of a run's time"
    assert Watcher(tmp_path, wanted[1:]).look().left_s == 0, "no run needs a trial"


def test_nothing_of_a_plan_has_begun(tmp_path: Path) -> None:
    one = Wanted(run_id="a" * 16, group_id="b" * 16, trial=False, method="lora", task="glue/cola")
    seen = Watcher(tmp_path / "none", [one]).look()
    assert (counted(seen.runs), seen.left, seen.left_s, seen.left_unknown) == ({"waiting": 1}, 1, 0, 1)


def test_a_record_that_was_changed_is_not_done(tmp_path: Path, add: Callable[..., Path]) -> None:
    """As `bench run` sees it, which trains the run again."""
    file = add("done") / record.FILE
    text = file.read_text()
    assert counted(Watcher(tmp_path).look().runs) == {"done": 1}
    value = json.loads(text)
    file.write_text(json.dumps(value))
    assert counted(Watcher(tmp_path).look().runs) == {"done": 1}, "other spaces are no change"
    value["cost"]["train_s"] += 1
    file.write_text(json.dumps(value))
    assert counted(Watcher(tmp_path).look().runs) == {"unreadable": 1}
    with pytest.raises(record.BrokenRecord, match="not a valid record"):
        record.read(file)


def test_only_changed_records_are_read_again(
    tmp_path: Path, add: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = brief._read
    monkeypatch.setattr(brief, "_read", lambda path, seen: read.append(path.parent.name) or original(path, seen))
    folders = [add("cancelled", seed=seed) for seed in range(3)]
    watcher = Watcher(tmp_path)
    watcher.look()
    assert sorted(read) == sorted(folder.name for folder in folders)
    read.clear()
    watcher.look()
    assert read == []
    before = (folders[1] / record.FILE).stat()
    value = json.loads((folders[1] / record.FILE).read_text()) | {"state": "preempted"}
    text = json.dumps(value | {"digest": record.digest(value)}, indent=1) + "\n"
    (tmp_path / "other").write_text(text)
    os.utime(tmp_path / "other", ns=(before.st_mtime_ns, before.st_mtime_ns))
    (tmp_path / "other").replace(folders[1] / record.FILE)
    after = (folders[1] / record.FILE).stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns), "only the inode differs"
    assert counted(watcher.look().runs) == {"cancelled": 2, "preempted": 1}
    assert read == [folders[1].name]
    for file in folders[0].iterdir():
        file.unlink()
    assert counted(watcher.look().runs) == {"cancelled": 1, "preempted": 1}
    assert folders[0] not in watcher._seen, "what is gone is forgotten"


def test_a_run_that_ends_during_a_look_was_not_interrupted(
    tmp_path: Path, add: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is read while it says running, and the claim when it has just gone."""
    folder = add("running")
    done = add("done", parent=tmp_path / "later")
    original = brief.look

    def ends(place: Path, before: Any) -> Any:
        seen = original(place, before)
        if place == folder and (done / record.FILE).exists():
            (done / record.FILE).replace(folder / record.FILE)
        return seen

    monkeypatch.setattr(brief, "look", ends)
    assert counted(Watcher(tmp_path).look().runs) == {"done": 1}


STRANGE = ["", "{", "[]", "null", "[" * 5000, '{"schema": 2}', "\xff"]


@pytest.mark.parametrize("text", STRANGE)
def test_what_is_no_record_is_unreadable(tmp_path: Path, text: str) -> None:
    folder = tmp_path / ("a" * 16)
    folder.mkdir()
    (folder / record.FILE).write_text(text, encoding="latin-1")
    assert counted(Watcher(tmp_path).look().runs) == {"unreadable": 1}
    claim(folder)
    assert counted(Watcher(tmp_path).look().runs) == {"running": 1}


def test_records_of_another_folder_or_version_pipes_and_large_files_are_unreadable(
    tmp_path: Path, add: Callable[..., Path]
) -> None:
    copied = add("done")
    copied.rename(tmp_path / ("a" * 16))
    other = add("done", seed=1) / record.FILE
    other.write_text(other.read_text().replace('"schema": 2', '"schema": 3'))
    for name in "bcd":
        (tmp_path / (name * 16)).mkdir()
    os.mkfifo(tmp_path / ("b" * 16) / record.FILE)
    os.mkfifo(tmp_path / ("b" * 16) / claims.FILE)
    large = add("done", seed=2) / record.FILE
    large.write_bytes(large.read_bytes().ljust(record.MOST_BYTES + 1))
    (tmp_path / ("c" * 16) / record.FILE).symlink_to(record.FILE)
    (tmp_path / ("d" * 16) / record.FILE).mkdir()
    seen = Watcher(tmp_path).look()
    assert counted(seen.runs) == {"unreadable": 5, "running": 1}, "who has the pipe's claim is not known"


def test_a_brief_record_agrees_with_the_whole_one(tmp_path: Path, add: Callable[..., Path]) -> None:
    for seed, state in enumerate(record.State.__args__):
        folder = add(state, seed=seed)
        whole, seen = record.read(folder / record.FILE), brief.look(folder, None)
        assert seen and seen.brief
        assert seen.brief.state == whole.state and seen.brief.group_id == whole.group_id
        assert (seen.brief.spec.method, seen.brief.spec.seed) == (whole.spec.method, whole.spec.seed)
        assert seen.brief.seconds == (whole.cost.train_s + whole.cost.eval_s if whole.cost else None)


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_is_not_there_or_none(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "runs").touch()
    with pytest.raises(EnvironmentProblem, match="runs") as caught:
        Watcher(tmp_path / "runs").look()
    assert caught.value.exit_code == ENVIRONMENT and "--runs" in caught.value.todo


def test_a_folder_that_comes_goes_and_comes_back(tmp_path: Path, add: Callable[..., Path]) -> None:
    watcher = Watcher(tmp_path / "runs")
    with pytest.raises(EnvironmentProblem):
        watcher.look()
    add("done", parent=tmp_path / "runs")
    assert counted(watcher.look().runs) == {"done": 1}
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentProblem):
        watcher.look()
    (tmp_path / "runs").mkdir()
    assert counted(watcher.look().runs) == {}
