"""`bench status`: lines that fit, JSON with the same fields, `--watch` on a terminal, in a pipe and as JSON lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cli import main, status, status_text
from bench.core.errors import ENVIRONMENT, INTERRUPTED, OK, EnvironmentProblem
from bench.core.text import HIDDEN, width
from bench.records import record
from bench.records.record import Record
from bench.records.status import STATES, ClaimedRun, Failure, Speed, Status

NONE = dict.fromkeys(STATES, 0)
LONG = "a-rather-long-name-" * 8


def claimed(number: int, **changes: Any) -> ClaimedRun:
    made = ClaimedRun(
        **{"run_id": f"{number:016x}", "trial": False, "method": "lora", "task": "glue/cola", "seed": number},
        **{"host": "node-a.example", "pid": 4711, "step": 30, "steps": 120, "loss": 0.51234, "elapsed_s": 90.0},
        **{"left_s": 200.0, "heartbeat_s": 3.2, "heartbeat": ""},
    )
    return replace(made, **changes)


def failed(number: int, **changes: Any) -> Failure:
    made = Failure(
        **{"run_id": f"{number:016x}", "trial": False, "method": "full", "task": "glue/rte", "seed": number},
        **{"state": "failed", "error": f"error {number}", "log": None},
    )
    return replace(made, **changes)


def seen(**changes: Any) -> Status:
    made = Status(
        folder="runs",
        time=0.0,
        runs=NONE,
        trials=NONE,
        last_hour=0,
        left=None,
        left_s=None,
        left_unknown=None,
        hosts={},
        claimed=[],
        failures=[],
        speed=[],
    )
    return replace(made, **changes)


@pytest.fixture
def runs(tmp_path: Path, make_record: Callable[..., Record]) -> Path:
    """One run that is done and one that failed."""
    bare: dict[str, Any] = {"metrics": None, "error": {"what": "it broke", "known": "", "todo": ""}, "state": "failed"}
    for seed, changes in enumerate(({}, bare)):
        one = make_record(spec={"seed": seed}, **changes)
        record.write(one, record.folder(tmp_path / "runs", one.run_id))
    return tmp_path / "runs"


def test_text_and_json_of_a_folder(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--runs", str(runs)]) == OK
    text = capsys.readouterr().out
    assert "1 done, 1 failed" in text and "it broke" in text and "39 s" in text
    assert main(["status", "--runs", str(runs), "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    assert [*found] == [*asdict(seen())]
    assert (found["runs"]["done"], found["failures"][0]["error"]) == (1, "it broke")
    assert (found["speed"][0]["runs"], found["speed"][0]["mean_s"]) == (1, 39.3)


def test_a_plan_for_devices_that_are_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = ("--method", "linear", "--task", "digits", "--backbone", "mlp", "--accelerator", "gpu")
    cluster = ("--devices", "4", "--strategy", "fsdp")
    assert main(["plan", *grid, *cluster, "--output", "grid.yaml"]) == OK
    assert main(["status", "--plan", "grid.yaml"]) == OK
    assert "1 waiting" in capsys.readouterr().out


def test_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of three seeds are trained, and another method, which the plan does not have."""
    monkeypatch.chdir(tmp_path)
    small = ("--task", "digits", "--backbone", "mlp", "--max-steps", "2", "--batch-size", "8")
    assert (
        main(["plan", "--method", "linear", *small, "--seeds", "0,1,2", "--out", "made", "--output", "grid.yaml"]) == OK
    )
    assert main(["status", "--plan", "grid.yaml"]) == OK
    text = capsys.readouterr().out.splitlines()
    assert text[0].split()[1:] == ["made"]
    assert [line.split() for line in text[1:]] == [
        ["runs", "3", "waiting"],
        ["left", "3,", "3", "of", "unknown", "time"],
    ]
    assert main(["run", "--plan", "grid.yaml", "--seeds", "0,1"]) == OK
    assert main(["run", "--method", "bitfit", *small]) == OK
    capsys.readouterr()
    assert main(["status", "--plan", "grid.yaml", "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    assert {state: number for state, number in found["runs"].items() if number} == {"done": 2, "waiting": 1}
    assert (found["left"], found["left_unknown"]) == (1, 0)
    took = [one.cost.train_s + one.cost.eval_s for one in record.load_all(tmp_path / "made")[0] if one.cost]
    [linear] = found["speed"]
    assert found["left_s"] == linear["mean_s"] <= max(took) + 0.1
    assert main(["status", "--plan", "grid.yaml", "--runs", "elsewhere"]) == OK
    assert "3 waiting" in capsys.readouterr().out
    assert main(["status", "--plan", "none.yaml"]) != OK
    assert "none.yaml" in capsys.readouterr().err


def test_the_time_left_on_several_hosts() -> None:
    text = status_text.text(seen(left=40, left_s=3600.0, left_unknown=2, claimed=[claimed(1), claimed(2)]))
    assert "left      40, about 60.0 min one after the other, 30.0 min with 2 at a time, 2 of unknown time" in text
    alone = [claimed(1), claimed(2, heartbeat="gone")]
    assert "at a time" not in status_text.text(seen(left=40, left_s=3600.0, left_unknown=0, claimed=alone))


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--json"]):
        assert main(["status", "--runs", str(tmp_path / "none"), *more]) == ENVIRONMENT
        out, err = capsys.readouterr()
        assert "no folder" in err and "--runs" in err
        assert not more or "no folder" in json.loads(out)["error"]["what"]


def test_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--runs", str(tmp_path)]) == OK
    assert capsys.readouterr().out.splitlines()[1].split() == ["runs", "none"]


def test_a_row_for_each_running_run() -> None:
    lines = status_text.text(seen(claimed=[claimed(1), claimed(2, trial=True, heartbeat="gone")])).splitlines()
    header = next(line for line in lines if line.startswith("running"))
    rows = lines[lines.index(header) + 1 :]
    assert rows[0].split() == [
        *("00000000", "lora", "glue/cola", "1", "node-a:4711", "30/120", "0.512", "90", "s", "3.3", "min", "3.2", "s"),
    ]
    assert "glue/cola (trial)" in rows[1] and rows[1].endswith("gone")
    for name in ("step", "loss", "left"):
        places = {
            line.index(value)
            for line, value in ((header, name), (rows[0], {"step": "30/", "loss": "0.512", "left": "3.3"}[name]))
        }
        assert len(places) == 1, "columns are aligned"


def test_what_is_not_known_is_a_dash() -> None:
    unknown = claimed(1, method=None, task=None, seed=None, host=None, pid=None, step=None, steps=None, loss=None)
    text = status_text.text(seen(claimed=[replace(unknown, elapsed_s=None, left_s=None)]))
    assert "None" not in text
    assert text.splitlines()[-1].split() == ["00000000", *["–"] * 8, "3.2", "s"]


@pytest.mark.parametrize("columns", [70, 80, 100])
def test_it_fits(columns: int) -> None:
    wide = claimed(1, method=LONG, task="漢字" * 40, host=LONG, steps=10**6, heartbeat="stale", heartbeat_s=1e5)
    everything = seen(
        runs=dict.fromkeys(STATES, 123_456),
        trials=dict.fromkeys(STATES, 123_456),
        hosts={f"{number}.{LONG}": 1 for number in range(50)},
        claimed=[wide] if columns > 80 else [],
        failures=[failed(1, method=LONG, task=LONG, error=LONG * 9)],
        speed=[Speed(method=LONG, task=LONG, runs=3, mean_s=1.0)],
    )
    text = status_text.text(everything, columns=columns)
    assert max(map(width, text.splitlines())) <= columns
    for state in STATES:
        assert f"123,456 {state}" in text, "not broken in the middle"
    assert "and 47 more" in text


def test_at_most_ten_failures_and_where_their_tracebacks_are() -> None:
    text = status_text.text(seen(failures=[failed(number) for number in range(13)]))
    assert "error 9" in text and "error 10" not in text and "and 3 more" in text
    assert "tracebacks" not in text
    logs = [failed(1, log="x"), failed(2, log="y", trial=True)]
    text = status_text.text(seen(failures=logs))
    assert text.splitlines()[-1] == "tracebacks: runs/RUN*/error.log, runs/selection/RUN*/error.log"
    assert "more" not in text


def test_on_a_terminal_as_many_running_runs_as_asked_for() -> None:
    speeds = [Speed(method=f"m{number}", task="t", runs=1, mean_s=1.0) for number in range(9)]
    several = seen(claimed=[claimed(number) for number in range(9)], speed=speeds)
    assert "more" not in status_text.text(several)
    text = status_text.text(several, most=2)
    assert text.count("node-a:4711") == 2 and "and 7 more" in text and "and 4 more" in text


def test_control_characters_and_secrets_are_not_printed(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    bad = "\x1b[31m\r\u202e"
    hostile = seen(
        folder=bad,
        hosts={bad: 1},
        claimed=[claimed(1, method=bad, task=bad, host=bad)],
        failures=[failed(1, method=bad, error=f"{bad} hf_abcdefghijklmnopqrstuvwx")],
        speed=[Speed(method=bad, task=bad, runs=1, mean_s=1.0)],
    )
    monkeypatch.setattr(status, "Watcher", lambda folder: SimpleNamespace(look=lambda: hostile))
    for more in ([], ["--json"]):
        assert main(["status", *more]) == OK
        out = capsys.readouterr().out
        assert not {"\x1b", "\r", "\u202e"} & {*out}
        assert "abcdefghijklmnop" not in out and HIDDEN in out
    assert watching([hostile], monkeypatch, "--json") == INTERRUPTED
    out = capsys.readouterr().out
    assert not {"\x1b", "\r", "\u202e"} & {*out} and "abcdefghijklmnop" not in out and HIDDEN in out
    line = status_text.failure(hostile.failures[0])
    assert "\x1b" not in line and HIDDEN in line


def watching(found: list[Any], monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    """The exit code of `--watch` that is ended by Ctrl-C after these looks."""
    left = iter(found)

    def look() -> Status:
        one = next(left, None)
        if one is None:
            raise KeyboardInterrupt
        if isinstance(one, EnvironmentProblem):
            raise one
        return one

    monkeypatch.setattr(status, "Watcher", lambda folder: SimpleNamespace(look=look))
    monkeypatch.setattr(status, "EVERY_S", 0)
    return main(["status", "--watch", *more])


ABSENT = EnvironmentProblem("no folder runs", "No such file or directory", "Name it.")
FIRST = seen(runs=NONE | {"running": 1, "failed": 1}, claimed=[claimed(1)], failures=[failed(9)])
SECOND = seen(runs=NONE | {"failed": 2}, failures=[failed(1), failed(9)])


def test_watching_in_a_pipe_prints_what_has_changed(monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert watching([ABSENT, ABSENT, FIRST, FIRST, SECOND, SECOND, ABSENT], monkeypatch) == INTERRUPTED
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[2] or line for line in lines] == [
        "no folder runs (No such file or directory); waiting for it",
        "1 running, 1 failed",
        "0000000000000001 failed: full glue/rte seed 1: error 1",
        "2 failed",
        "no folder runs (No such file or directory); waiting for it",
    ]


def test_watching_as_json_is_a_line_for_each_look(monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert watching([FIRST, ABSENT, FIRST], monkeypatch, "--json") == INTERRUPTED
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        asdict(FIRST),
        {"error": {"what": ABSENT.what, "known": ABSENT.known, "todo": ABSENT.todo}},
        asdict(FIRST),
    ]


def test_watching_on_a_terminal_redraws(monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "12")
    many = seen(claimed=[claimed(number) for number in range(40)])
    assert watching([FIRST, ABSENT, many], monkeypatch) == INTERRUPTED
    out = capsys.readouterr().out
    last = out[out.rindex("running ") :]
    assert "no folder runs" in out
    assert last.count("node-a") == 7 and "and 33 more" in last, "two lines above, one between, header and rest: 12"


CODE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in its background ignores it
from bench.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_it_with_130(runs: Path) -> None:
    path = os.pathsep.join([str(Path(status.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", CODE, "status", "--watch", "--json", "--runs", str(runs)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert first["runs"]["done"] == 1
    assert (process.returncode, errors) == (INTERRUPTED, "interrupted\n")
