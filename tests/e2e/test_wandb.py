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

from bench.cli import main
from bench.records import record
from bench.tracking import account, send, sync

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
    assert json.loads(outcome.out)["runs"] == [one.to_json() for one in outcome.records], (
        "nothing but the result on stdout"
    )
    assert "wandb" not in outcome.err.lower()
    assert not (tmp_path / "wandb").exists(), "nothing is left where the user stands"
    for made in outcome.records:
        assert made.state == "done"
        tracking = made.tracking
        assert {**tracking.to_json(), "directory": None} == {
            "kind": "wandb", "mode": "offline", "id": made.run_id, "error": None, "directory": None,
        }  # fmt: skip
        folder = outcome.folder / made.run_id / "wandb" / tracking.directory
        raw = (folder / f"run-{made.run_id}.wandb").read_bytes()
        assert made.group_id.encode() in raw
        assert b"lowrank-bench" in raw
    _check_summaries(outcome)


def _check_summaries(outcome: Any) -> None:
    """What W&B's own reader finds in its files, against the records."""
    for made in outcome.records:
        found = _inspect(outcome.folder / made.run_id / "wandb" / made.tracking.directory)
        assert found["run_id"] == made.run_id
        assert found["project"] == "lowrank-bench"
        assert set(found["tags"]) == {made.spec.method, "glue/cola", "tiny-bert", "directory"}
        assert found["config"]["lr"] == made.lr
        summary, primary = found["summary"], made.metrics.primary
        assert summary["primary"] == {"max": pytest.approx(primary.value)}
        assert summary["dev/matthews"] == pytest.approx(primary.value)
        assert summary["params/trainable"] == made.params.trainable
        assert summary["train/loss"]["min"] == pytest.approx(min(point.loss for point in made.curve))
        ranks = made.ranks
        assert ("rank/effective" in summary) == bool(ranks)
        if ranks:
            mean = sum(rank.effective for rank in ranks) / len(ranks)
            assert summary["rank/effective"] == pytest.approx(mean)
            assert summary["ranks"]["nrows"] == len(ranks)


def test_the_mirror_holds_no_secrets(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B itself would keep the command as it was typed."""
    monkeypatch.setenv("MY_TOKEN", "geheim one")
    monkeypatch.setattr(sys, "argv", ["bench", "run", "--set", "x.key=geheim two"])
    outcome = bench(
        "--method", "lora", "--task", "glue/cola", "--track", "wandb", "--set", "method.target=.*query|geheim one"
    )
    wandb.teardown()
    folder = outcome.folder / outcome.only().run_id / "wandb" / outcome.only().tracking.directory
    content = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(b"***" in part for part in content)
    assert not any(b"geheim" in part for part in content)


def _inspect(folder: Path) -> dict[str, Any]:
    return json.loads(_leet("--summary", "--json", str(folder)))


def _opened(folder: Path) -> dict[str, Any]:
    """How the run was begun: its group and type, which the summary leaves out."""
    return next(line["run"] for line in map(json.loads, _leet("--json", str(folder)).splitlines()) if "run" in line)


def _leet(*words: str) -> str:
    program = shutil.which("wandb", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("the program wandb is not beside Python; the files themselves were checked")
    done = subprocess.run([program, "leet", "inspect", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this wandb cannot inspect a run, the files themselves were checked: {done.stderr.strip()[:100]}")
    return done.stdout


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
        assert (made.state, made.tracking.error) == ("done", "RuntimeError: no room left")
        assert made.metrics


def test_a_wandb_that_cannot_be_imported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    outcome = bench(*TWO)
    assert outcome.code == 0
    assert {made.state for made in outcome.records} == {"done"}
    assert all("wandb" in made.tracking.error for made in outcome.records)


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
    monkeypatch.setattr(account, "connection_error", lambda endpoint: "")
    for name, value in (("WANDB_API_KEY", key), ("WANDB_MODE", chosen)):
        monkeypatch.delenv(name, raising=False)
        if value:  # W&B itself refuses an empty one
            monkeypatch.setenv(name, value)
    outcome = bench("--method", "linear", "--task", "glue/cola", "--track", "wandb")
    assert [options["mode"] for options in seen] == [mode], outcome.err
    assert outcome.only().tracking.mode == mode


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
        assert bench(*words, "--track", "wandb").only().tracking.error == "RuntimeError: no room left"
        assert len(seen) == times
    assert len(fitted) == 1


def test_off_by_default(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", lambda **options: pytest.fail("W&B is asked for, never assumed"))
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    outcome = bench("--method", "linear", "--task", "glue/cola")
    assert outcome.only().tracking is None


GRID = ("--method", "lora,linear", "--task", "glue/cola,glue/rte", "--seeds", "0,1", "--track", "wandb")


def test_a_mirrored_grid_folds_seeds_and_shows_ranks_curves_and_directions(bench: Bench) -> None:
    outcome = bench(*GRID)
    assert outcome.code == 0, outcome.err
    assert len(outcome.records) == 8
    groups = set()
    for made in outcome.records:
        found = _inspect(outcome.folder / made.run_id / "wandb" / made.tracking.directory)
        opened = _opened(outcome.folder / made.run_id / "wandb" / made.tracking.directory)
        groups.add((opened["run_group"], opened["job_type"], tuple(sorted(found["tags"]))))
        assert found["config"]["options"].get("method", {}) == made.spec.options.method
        assert found["config"]["source"]["data_hash"] == made.source.data_hash
        assert "out" not in found["config"] and "start" not in found["config"]
        assert found["summary"]["score"] == pytest.approx(made.metrics.primary.value)
        courses = {f"effective_rank/{one.of}": one.effective[-1] for one in made.spectra.series}
        sent = {name: value for name, value in found["summary"].items() if name.startswith("effective_rank/")}
        assert courses and sent == pytest.approx(courses)
        layers = {row.layer: row.effective for row in made.spectra.layers if row.of == "updates"}
        before = "effective_rank_by_layer/"
        told = {name.removeprefix(before): v for name, v in found["summary"].items() if name.startswith(before)}
        assert told == pytest.approx(layers) and set(layers) >= {row.layer for row in made.ranks}
    assert {group for group, *_ in groups} == {made.group_id for made in outcome.records}
    assert len(groups) == 4, "two seeds of a configuration are one group"


class _File:
    """What W&B's API gives for a file of a run."""

    def __init__(self, path: Path) -> None:
        self.path, self.name, self.size = path, path.name, path.stat().st_size if path.is_file() else 0

    def download(self, root: str, replace: bool) -> None:
        Path(root).mkdir(parents=True)
        shutil.copy(self.path, Path(root) / self.path.name)


class _Run:
    """What the API gives for a run: its files are those that the offline run holds."""

    def __init__(self, run_id: str, files: Path) -> None:
        self.id, self.files = run_id, files

    def file(self, name: str) -> _File:
        return _File(self.files / name)


def _answers(outcome: Any) -> list[_Run]:
    tracked = [(made.run_id, made.tracking.directory) for made in outcome.records]
    return [_Run(run_id, outcome.folder / run_id / "wandb" / name / "files") for run_id, name in tracked]


def test_every_table_can_be_made_again_from_wandb_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = bench(*GRID)
    answers = _answers(outcome)
    asked: list[str] = []

    class Api:
        def runs(self, path: str) -> list[_Run]:
            asked.append(path)
            return answers

    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setattr(account, "require", lambda: None)
    words = ["import", "wandb", "us/lowrank-bench", "--out", str(tmp_path / "imported")]
    assert main(words) == 0
    assert asked == ["us/lowrank-bench"] and "8 imported" in capsys.readouterr().err
    for name in ("md", "csv", "tex", "html"):
        texts: list[str] = []
        for folder in (outcome.folder, tmp_path / "imported"):
            assert main(["leaderboard", "--runs", str(folder), "--format", name]) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1]
    assert main(words) == 0
    assert "8 there already" in capsys.readouterr().err


def test_what_wandb_holds_is_not_trusted(
    bench: Bench, make_record: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, other = make_record(), make_record(spec={"seed": 5})
    hostile = {
        good.run_id: json.dumps(good.to_json()),
        "../../../evil": json.dumps({**good.to_json(), "run_id": "../../../evil"}),
        "a" * 16: json.dumps(other.to_json()),
        "b" * 16: "{",
        "c" * 16: json.dumps({**good.to_json(), "run_id": "c" * 16, "surprise": 1}),
        "d" * 16: json.dumps({**good.to_json(), "run_id": "d" * 16, "lr": float("nan")}),
        "e" * 16: json.dumps({**good.to_json(), "run_id": "e" * 16, "schema": 99}),
        other.run_id: json.dumps(other.to_json()),
    }
    files = tmp_path / "files"
    runs = [_Run("f" * 16, files / "none")]
    for i, (run_id, text) in enumerate(hostile.items()):
        (files / str(i)).mkdir(parents=True)
        (files / str(i) / record.FILE).write_text(text)
        runs.append(_Run(run_id, files / str(i)))
    out = tmp_path / "out"
    ours = make_record(spec={"seed": 5}, warnings=["ours"])
    record.write(ours, record.folder(out, ours.run_id))
    done = {one.run_id: one for one in sync.restore(runs, out)}
    assert {run_id: one.state for run_id, one in done.items()} == {
        "f" * 16: "no record", good.run_id: "imported", other.run_id: "kept ours",
        **dict.fromkeys(["../../../evil", *(letter * 16 for letter in "abcde")], "bad"),
    }  # fmt: skip
    assert {path.name for path in out.iterdir()} == {good.run_id, other.run_id}
    assert record.read(out / other.run_id / record.FILE).warnings == ("ours",)
    assert [one.state for one in sync.restore([runs[-1]], out, replace=True)] == ["imported"]
    assert record.read(out / other.run_id / record.FILE) == other


def test_the_adapter_is_an_artifact_where_that_is_asked(bench: Bench) -> None:
    outcome = bench(*TWO, "--set", "runtime.track_artifact=true")
    plain = bench(*TWO, out=outcome.folder.parent / "plain")
    assert [r.run_id for r in outcome.records] == [r.run_id for r in plain.records], "no part of the identity"
    for found, sent in ((outcome, True), (plain, False)):
        for made in found.records:
            folder = found.folder / made.run_id / "wandb" / made.tracking.directory
            raw = (folder / f"run-{made.run_id}.wandb").read_bytes()
            assert (f"adapter-{made.run_id}".encode() in raw) == sent


@pytest.mark.parametrize("name", ["adapter.safetensors", "spectra.npz"])
def test_a_changed_file_of_a_run_is_not_sent(bench: Bench, name: str) -> None:
    words = ("--method", "lora", "--task", "glue/cola", "--set", "runtime.track_artifact=true")
    made = bench(*words)
    file = made.folder / made.only().run_id / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    mirrored = bench(*words, "--track", "wandb").only().tracking
    assert mirrored.error.endswith(f"{name} was changed after the run had written it")
    assert not (file.parent / "wandb").exists()


def test_two_processes_are_one_wandb_run(bench: Bench) -> None:
    made = bench("--method", "lora", "--task", "glue/cola", "--track", "wandb", "--devices", "2")
    assert made.code == 0, made.err
    run = made.only()
    assert run.cost.devices == 2
    [folder] = (made.folder / run.run_id / "wandb").glob("*run-*-*")
    assert _inspect(folder)["run_id"] == run.run_id


def test_no_key_in_config_record_or_warning(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., dict[str, Any]]
) -> None:
    secret = "f" * 39 + "9"
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", lambda **options: _refuse_with(f"401 for key {secret}"))
    outcome = bench(*TWO)
    assert (
        secret not in outcome.err + json.dumps([one.to_json() for one in outcome.records])
        and "401 for key ***" in outcome.err
    )
    leaked = make_record(provenance={"command": ["bench", "run", f"--x={secret}"]})
    assert secret not in json.dumps(send.config(leaked)) and "--x=***" in json.dumps(send.config(leaked))


def _refuse_with(text: str) -> Any:
    raise RuntimeError(text)


def test_sync_sends_offline_runs_and_says_so_in_the_record(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = bench(*TWO)
    first = outcome.records[0].run_id
    extra = bench("--method", "linear", "--task", "glue/rte")
    monkeypatch.setattr(account, "require", lambda: None)
    words = ["wandb", "sync", "--runs", str(outcome.folder)]
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().err.startswith("2 would be sent, 0 failed, 1 not due")
    seen: list[str] = []

    def sending(folder: Path) -> str:
        seen.append(folder.name)
        return "no room in the cloud" if folder.name.endswith(first) else ""

    monkeypatch.setattr(sync, "_wandb_sync", sending)
    assert main(words) == 1
    shown = capsys.readouterr()
    assert "no room in the cloud" in shown.out and "1 sent, 1 failed, 1 not due" in shown.err
    modes = {r.run_id: r.tracking and r.tracking.mode for r in extra.records}
    assert modes[first] == "offline" and sorted(map(str, modes.values())) == ["None", "offline", "online"]
    assert len(seen) == 2
    monkeypatch.setattr(sync, "_wandb_sync", lambda folder: "")
    assert main(words) == 0 and main(words) == 0
    assert "0 sent, 0 failed, 3 not due" in capsys.readouterr().err


def test_sync_trusts_no_folder_of_a_record(
    make_record: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tracking = {"kind": "wandb", "mode": "offline", "id": "x", "error": None, "directory": "../../../etc"}
    run = make_record(tracking=tracking)
    record.write(run, record.folder(tmp_path, run.run_id))
    monkeypatch.setattr(sync, "_wandb_sync", lambda folder: pytest.fail("nothing is sent"))
    found = sync.sync(tmp_path, run)
    assert found.state == "failed" and "no offline run '../../../etc'" in found.why


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("wandb", "sync"), 3, "no W&B key"),
        (("wandb", "report", "us/project"), 3, "no W&B key"),
        (("import", "wandb", "us/project"), 3, "no W&B key"),
        (("wandb", "report"), 2, "no project is given"),
        (("wandb", "report", "us"), 2, "'us' is not ENTITY/PROJECT"),
        (("import", "wandb", "us/../x"), 2, "is not ENTITY/PROJECT"),
        (("wandb", "snyc"), 2, "Did you mean 'sync'?"),
        (("wandb", "sync", "us/project"), 2, "sync takes no project"),
    ],
)
def test_what_is_missing_is_said(
    bench: Bench, words: tuple[str, ...], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench("--method", "linear", "--task", "glue/cola", "--track", "wandb")  # its folder is the default one
    assert main(list(words)) == code
    assert told in capsys.readouterr().err


def test_a_report_is_written_without_any_network(
    asked: Callable[[], bool], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb_workspaces")
    words = ["wandb", "report", "us/lowrank-bench", "--dry-run"]
    assert main(words) == 0
    text = capsys.readouterr().out
    spec = json.loads(text)
    assert spec["project"] == {"name": "lowrank-bench", "entityName": "us"}
    for needed in ("Scatter Plot", "Parallel Coordinates Plot", "Run History Line Plot"):
        assert f'"viewType": "{needed}"' in text
    for name in ("summary:params/trainable", "summary:score", "summary:rank/effective", "effective_rank/updates"):
        assert name in text
    assert main([*words, "--output", str(tmp_path / "report.json")]) == 0
    assert (tmp_path / "report.json").read_text() == text, "the same every time"
    assert not asked()
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert main(words) == 3
    assert 'pip install "lowrank-bench[wandb]"' in capsys.readouterr().err
