"""Check that this machine has the devices that a run asks for."""

from __future__ import annotations

from bench.core.errors import EnvironmentProblem


def check_devices(accelerator: str, devices: int) -> None:
    """Raise EnvironmentProblem if torch finds fewer; processes on the CPU have no limit.

    `accelerator` is Lightning's name: auto, cpu, gpu, cuda or mps.
    """
    if accelerator == "cpu" or (accelerator == "auto" and devices == 1):
        return
    import torch

    cuda, mps = torch.cuda.device_count(), int(torch.backends.mps.is_available())
    counts = {"cuda": cuda, "mps": mps, "gpu": cuda or mps}
    if accelerator == "auto" and (cuda or mps):
        accelerator = "gpu"
    if accelerator not in counts or counts[accelerator] >= devices:
        return
    raise EnvironmentProblem(
        f"--accelerator {accelerator} --devices {devices}: this machine does not have them",
        f"CUDA devices: {cuda}; MPS devices: {mps}",
        "Use --accelerator cpu, or fewer --devices. `bench doctor` shows what torch finds.",
    )
