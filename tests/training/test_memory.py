"""Peak memory is that of the device that a run trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.training import memory


def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU on which 123 bytes were allocated."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: 123)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device=None: None)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not report a process's peak")
def test_a_run_on_the_cpu_reports_the_process_even_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch)
    memory.reset()
    found = memory.peak(torch.device("cpu"))
    assert found is not None and found > 2**20


def test_a_run_on_a_gpu_reports_what_was_allocated_there(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch)
    assert memory.peak(torch.device("cuda", 0)) == 123


def test_a_record_has_the_peak_of_its_device(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[torch.device] = []
    monkeypatch.setattr(memory, "peak", lambda device: devices.append(device) or 123)
    lab.run(lab.spec("full", max_steps=1, accelerator="cpu"))
    assert devices == [torch.device("cpu")]
