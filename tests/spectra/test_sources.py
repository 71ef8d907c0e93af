"""What SpectrumTracker looks at and when: steps, layers by default and by pattern, and options that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.config.sections import QUANTITIES, SpectraConfig
from bench.core.errors import UsageError
from bench.spectra.tracking import sources
from bench.spectra.tracking.sources import choose, snapshots, spread

LAYERS = [f"encoder.{i}.{part}" for i in range(6) for part in ("query", "value")]


@pytest.mark.parametrize(
    ("steps", "every", "want"),
    [
        (150, 0, [0, 30, 60, 90, 120, 150]),
        (7, 0, [0, 1, 3, 4, 6, 7]),
        (3, 0, [0, 1, 2, 3]),
        (1, 0, [0, 1]),
        (10, 4, [0, 4, 8, 10]),
        (10, 5, [0, 5, 10]),
        (10, 100, [0, 10]),
        (3, 1, [0, 1, 2, 3]),
    ],
)
def test_when(steps: int, every: int, want: list[int]) -> None:
    assert snapshots(steps, every) == want


def test_thin_layers_all_wide_ones_four() -> None:
    thin, wide = dict.fromkeys(LAYERS, 8), dict.fromkeys(LAYERS, 384)
    assert choose("auto", thin) == (LAYERS, [])
    assert choose("auto", wide) == ([LAYERS[i] for i in (0, 4, 7, 11)], [])
    assert choose("all", wide) == (LAYERS, [])
    assert choose("auto", wide, secondary=LAYERS[:10]) == (LAYERS[10:], [])
    assert choose("auto", thin, secondary=LAYERS) == (LAYERS, []), "better those than none"
    assert choose("auto", {}) == ([], [])


@pytest.mark.parametrize("count", range(12))
def test_spread_takes_both_ends_and_none_twice(count: int) -> None:
    names = [f"{i}" for i in range(count)]
    found = spread(names)
    assert len({*found}) == len(found) == min(4, count) and found == [n for n in names if n in found]
    assert count < 2 or (found[0], found[-1]) == (names[0], names[-1])


def test_patterns() -> None:
    widths = dict.fromkeys(LAYERS, 384)
    assert choose("*value, encoder.0.*", widths) == ([LAYERS[0], *LAYERS[1::2]], [])
    assert choose("encoder.?.query,nothing*,Encoder*", widths) == (LAYERS[::2], ["nothing*", "Encoder*"])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.token = nn.Parameter(torch.ones(1, 1, 4))
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(3))
        self.few = nn.ModuleList(nn.Linear(4, 4) for _ in range(9))
        self.conv = nn.Conv2d(3, 5, 2)


class Trained(nn.Module):
    """As much of a method as sources ask for."""

    def __init__(self, moved: Any = ()) -> None:
        super().__init__()
        self.backbone, self.head, self.moved = Net(), nn.Linear(4, 2), moved

    def deltas(self) -> Any:
        return iter([(name, None) for name in self.moved])


def test_trained_matrices_have_their_layers_names_and_the_usual_ones_are_known() -> None:
    method: Any = Trained()
    found = sources.find_trained(method)
    assert found.secondary == {"words", "head"}
    layers = {f"layers.{i}.{j}" for i in range(3) for j in (0, 1)}
    assert {*found.matrices} - found.secondary == {"conv", *layers, *_few()}
    assert found.matrices["layers.1.0"].parameter is method.backbone.layers[1][0].weight
    method.backbone.layers.requires_grad_(False)
    assert {*sources.find_trained(method).matrices} - found.secondary == {"conv", *_few()}
    moved: Any = Trained(["conv", "gone"])
    assert sources.find_trained(moved).secondary == {*found.matrices} - {"conv"}
    read = dict(sources.trained_matrices(found, lambda name, matrix: matrix.value).read(["conv"]))
    assert read["conv"].shape == (5, 12)


class Mixture(nn.Module):
    """Experts in one tensor, and tensors of three axes that are no linear map, beside a narrow convolution."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, 50, 4))
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.experts = nn.Parameter(torch.randn(3, 4, 6))
        self.last = nn.Conv1d(4, 1, 3)  # one row of one filter, and a matrix all the same


def test_a_stack_is_one_matrix_for_each_expert_and_what_is_no_map_is_listed() -> None:
    """As in the file that the run leaves: `bench spectra` of it has the same names and values."""
    method: Any = Trained()
    method.backbone = Mixture()
    found = sources.find_trained(method)
    assert {*found.matrices} == {"experts[0]", "experts[1]", "experts[2]", "last", "head"}
    assert found.no_maps == ["pos_embed (1×50×4)", "token (1×1×4)"]
    method.backbone.experts.square().sum().backward()
    source = sources.trained_matrices(found, lambda name, matrix: matrix.gradient)
    assert [source.widths[name] for name in ("experts[0]", "last", "head")] == [4, 1, 2]
    deltas = dict(source.read(["experts[0]", "experts[2]", "last"]))
    assert "last" not in deltas, "it has no gradient"
    for place in (0, 2):
        sigma = np.linalg.svd(2 * method.backbone.experts[place].detach().double().numpy(), compute_uv=False)
        assert np.allclose(deltas[f"experts[{place}]"].singular_values().numpy(), sigma, rtol=1e-6)


def _few() -> set[str]:
    return {f"few.{i}" for i in range(9)}


def test_names_that_would_be_the_same_stay_whole() -> None:
    method: Any = Trained()
    method.backbone.head = nn.Linear(4, 2)
    found = sources.find_trained(method).matrices
    assert {"backbone.head.weight", "head.weight", "backbone.conv.weight"} <= {*found}


def test_modules_are_blocks_named_or_found_or_layers() -> None:
    method: Any = Trained()
    assert sources.modules(method)[1] == ["layers.0", "layers.1", "layers.2"], "single layers are no blocks"
    method.backbone.blocks = [method.backbone.conv]
    assert sources.modules(method)[1] == ["conv"]
    del method.backbone.blocks, method.backbone.layers
    assert sources.modules(method)[1] == [*(f"few.{i}" for i in range(9)), "conv"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"of": "updates,grads"}, "'grads' is none of them"),
        ({"of": ""}, "'' is none of them"),
        ({"of": "updates,none"}, "'none' is none of them"),
        ({"of": "updates,updates"}, "named twice"),
        ({"every": -1}, "spectra.every=-1"),
        ({"of": "activations", "window": 0}, "spectra.window=0"),
        ({"layers": "a,,b"}, "an empty pattern"),
        ({"of": "none", "every": 5}, "spectra.every=5 changes nothing with spectra.of=none"),
        ({"of": "none", "layers": "all"}, "spectra.layers=all changes nothing"),
        ({"window": 3}, "spectra.window=3 changes nothing with spectra.of=updates"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        SpectraConfig(**options)
    assert what in caught.value.what and caught.value.known and caught.value.todo


def test_quantities_come_in_one_order() -> None:
    assert SpectraConfig(of=" steps , updates").names == ("updates", "steps")
    assert SpectraConfig(of="none").names == ()
    assert SpectraConfig(of=",".join(reversed(QUANTITIES))).names == QUANTITIES
