"""Global batches: each example once per epoch, a function of seed and step; cutting them changes nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bench.api.batching import GROUP, BatchSplit, StepBatches
from bench.core.errors import UsageError

SIZES = [(64, 16), (50, 16), (17, 16), (16, 16), (5, 16), (1, 4), (333, 4), (40, 1)]


def batches(n: int, size: int, *, seed: int = 0) -> StepBatches:
    lengths = np.random.default_rng(n).integers(3, 60, n)
    return StepBatches(lengths=lengths, batch_size=size, seed=seed)


def epoch(found: StepBatches, number: int) -> list[np.ndarray]:
    return [found[number * found.per_epoch + i] for i in range(found.per_epoch)]


@pytest.mark.parametrize(("n", "size"), SIZES)
def test_each_example_comes_once_per_epoch(n: int, size: int) -> None:
    found = batches(n, size)
    assert found.per_epoch == -(-n // size)
    for number in (0, 1, 7):
        parts = epoch(found, number)
        assert sorted(np.concatenate(parts).tolist()) == list(range(n))
        assert sorted(map(len, parts))[1:] == [size] * (len(parts) - 1), "one batch at most is smaller"


@pytest.mark.parametrize(("n", "size"), SIZES)
def test_the_order_follows_from_seed_and_step_alone(n: int, size: int) -> None:
    steps = range(3 * batches(n, size).per_epoch)
    forth = batches(n, size)
    back = batches(n, size)
    one = {step: forth[step].tolist() for step in steps}
    other = {step: back[step].tolist() for step in reversed(steps)}
    assert one == other
    if n > 4 * size:
        assert [one[s] for s in steps] != [batches(n, size, seed=1)[s].tolist() for s in steps]
        assert epoch(forth, 0)[0].tolist() != epoch(forth, 1)[0].tolist()


def test_batches_group_like_lengths_in_a_random_order() -> None:
    found = batches(16 * GROUP * 2, 16)
    parts = epoch(found, 0)
    spread = np.mean([np.ptp(found.lengths[p]) for p in parts])
    assert spread < 0.1 * np.ptp(found.lengths), "little padding"
    means = [float(found.lengths[p].mean()) for p in parts]
    rises = sum(a < b for a, b in pairwise(means))
    assert 0.3 < rises / len(means) < 0.7, "but short and long batches alternate"


WAYS = [(1, 0), (1, 4), (2, 0), (2, 4), (2, 8), (4, 2), (16, 1), (16, 0), (8, 2), (1, 16), (1, 1)]


@pytest.mark.parametrize(("world", "micro"), WAYS)
@pytest.mark.parametrize("size", [16, 15, 9, 2, 1])
def test_parts_of_all_devices_make_up_the_batch(world: int, micro: int, size: int) -> None:
    """The mean over devices and parts of weight × mean loss is the mean over the batch, ragged or not."""
    draw = np.random.default_rng(size)
    batch, losses = draw.permutation(100)[:size], draw.normal(size=100)
    seen: list[int] = []
    means: list[float] = []
    for rank in range(world):
        cut = BatchSplit(batch_size=16, rank=rank, world=world, micro=micro)
        assert cut.parts == (16 // world // micro if micro else 1)
        for index in range(cut.parts):
            part, weight = cut.part(batch, index)
            assert len(part) > 0, "a device never waits for one that has nothing to do"
            assert not micro or len(part) <= micro
            if weight:
                seen += part.tolist()
            means.append(weight * losses[part].mean())
    assert sorted(seen) == sorted(batch.tolist())
    assert np.mean(means) == pytest.approx(losses[batch].mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("size", "world", "micro"), [(16, 3, 0), (16, 1, 5), (16, 2, 3), (16, 2, 16), (4, 8, 0), (4, 1, 8)]
)
def test_sizes_that_do_not_divide_are_refused(size: int, world: int, micro: int) -> None:
    with pytest.raises(UsageError, match="equal parts") as caught:
        BatchSplit(batch_size=size, world=world, micro=micro)
    assert str(world) in caught.value.known
    assert caught.value.todo
