"""When checkpoints are written: soon, and at most for a fiftieth of the time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.config.sections import RuntimeConfig
from bench.training import callbacks

STEPS = 2000
Writes = Callable[..., list[float]]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Writes:
    """Seconds at which the writes of a run of 2000 steps begin, by a clock that only steps and writes move."""

    monkeypatch.setattr("bench.core.files._sync", lambda path: None)  # 2000 of them take long

    def run(*, every_s: float | None, step_s: float, write_s: float) -> list[float]:
        clock, begun = [0.0], list[float]()
        monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: clock[0]))

        def save(file: Path) -> None:
            begun.append(clock[0])
            file.touch()
            clock[0] += write_s

        alone = SimpleNamespace(broadcast=lambda due: due)
        trainer: Any = SimpleNamespace(
            accumulate_grad_batches=2, is_global_zero=True, world_size=1, save_checkpoint=save, strategy=alone
        )
        data: Any = SimpleNamespace(batches_taken=0)
        keeper, nothing = callbacks.Checkpoint(tmp_path / "checkpoint.ckpt", data, every_s), Any
        for batch in range(2 * STEPS):
            keeper.on_train_batch_start(trainer, nothing, {}, batch)  # type: ignore[arg-type]
            clock[0] += step_s / 2
        return begun

    return run


def test_the_first_is_written_after_ten_seconds(writes: Writes) -> None:
    begun = writes(every_s=RuntimeConfig().checkpoint_s, step_s=1.0, write_s=0.01)
    assert begun[0] == 10
    assert all(10 <= later - earlier <= 11.1 for earlier, later in pairwise(begun))


def test_a_slow_disk_makes_them_rarer(writes: Writes) -> None:
    begun = writes(every_s=10.0, step_s=1.0, write_s=4.0)
    assert begun[0] == 10
    shares = [4 / (later - earlier) for earlier, later in pairwise(begun)]
    assert len(shares) == 9 and all(0.0195 < share <= 0.02 for share in shares)


def test_zero_writes_after_every_step_and_none_never(writes: Writes) -> None:
    assert len(writes(every_s=0, step_s=1.0, write_s=4.0)) == STEPS - 1
    assert writes(every_s=None, step_s=1.0, write_s=4.0) == []
