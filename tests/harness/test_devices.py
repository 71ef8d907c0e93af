"""Devices that a machine does not have are refused before anything trains."""

from __future__ import annotations

import pytest
import torch

from bench.core.errors import EnvironmentProblem
from bench.harness.devices import check_devices


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    cuda, mps = request.param
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("machine", "accelerator", "devices"),
    [
        ((0, False), "cuda", 1),
        ((0, False), "gpu", 1),
        ((0, False), "mps", 1),
        ((1, False), "cuda", 2),
        ((1, False), "auto", 2),
        ((0, True), "cuda", 1),
        ((0, True), "auto", 2),
    ],
    indirect=["machine"],
)
def test_what_is_missing_is_refused(accelerator: str, devices: int) -> None:
    with pytest.raises(EnvironmentProblem, match=f"--accelerator .* --devices {devices}") as error:
        check_devices(accelerator, devices)
    assert "CUDA devices: " in error.value.known and "--accelerator cpu" in error.value.todo


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("machine", "accelerator", "devices"),
    [
        ((0, False), "auto", 2),
        ((0, False), "cpu", 64),
        ((1, False), "cpu", 2),
        ((2, False), "gpu", 2),
        ((2, False), "auto", 2),
        ((0, True), "gpu", 1),
    ],
    indirect=["machine"],
)
def test_what_is_there_is_accepted(accelerator: str, devices: int) -> None:
    check_devices(accelerator, devices)
