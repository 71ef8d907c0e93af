"""Peak memory is that of the device that a run trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.training import memory
from bench.training.memory import PeakMemory


def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU on which 123 bytes were allocated."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: 123)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device=None: None)


reported = pytest.mark.skipif(not memory.STATUS.exists(), reason="the system does not report a process's peak")


@reported
def test_a_run_on_the_cpu_reports_the_process_even_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch)
    found = PeakMemory().on(torch.device("cpu"))
    assert found is not None and found > 2**20


@reported
def test_what_an_earlier_run_took_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    earlier, device = PeakMemory(), torch.device("cpu")
    torch.ones(2**26)  # 256 MiB, given back at once
    with monkeypatch.context() as patch:
        patch.setattr(memory, "RESET", tmp_path / "missing" / "clear_refs")
        assert PeakMemory().on(device) is None, "where it would count, no peak is recorded"
    before, after = earlier.on(device), PeakMemory().on(device)
    assert before is not None and after is not None and before - after > 2**27


def test_a_run_on_a_gpu_reports_what_was_allocated_there(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch)
    assert PeakMemory().on(torch.device("cuda", 0)) == 123


def test_a_record_has_the_peak_of_its_device(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[torch.device] = []
    monkeypatch.setattr(PeakMemory, "on", lambda self, device: devices.append(device) or 123)
    run = lab.run(lab.spec("full", max_steps=1, accelerator="cpu"))
    assert devices == [torch.device("cpu")] and run.result.cost.peak_memory_bytes == 123
