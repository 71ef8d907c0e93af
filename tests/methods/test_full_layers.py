"""Full fine-tuning of layers that keep their matrix in other ways: ΔW by numpy, and what has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from encoders import encoder
from image_reference import adapted
from torch import nn


class Encoder(nn.Module):
    """An encoder of transformers as `model`."""

    width = 16

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.model = encoder(kind).double()


@pytest.mark.parametrize(
    ("kind", "layers", "shape"),
    [("gpt2", 8, (48, 16)), ("squeezebert", 13, (16, 4)), ("bert", 13, (16, 16))],  # SqueezeBERT has four groups
)
@torch.no_grad()
def test_every_layer_is_a_matrix_out_by_in(kind: str, layers: int, shape: tuple[int, int]) -> None:
    method: Any = adapted("full", Encoder(kind))
    before = {name: p.clone().numpy() for name, p in method.backbone.named_parameters()}
    for number, parameter in enumerate(method.backbone.parameters()):
        parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    deltas = dict(method.deltas())
    assert len(deltas) == layers
    assert next(iter(deltas.values())).shape == shape
    for name, delta in deltas.items():
        change = method.backbone.get_submodule(name).weight.numpy() - before[f"{name}.weight"]
        matrix = change.T if kind == "gpt2" else change.reshape(len(change), -1)
        assert np.array_equal(delta.dense().numpy(), matrix)
        assert delta.shape[0] == len(method.backbone.get_submodule(name).bias)
        assert delta.nominal == min(matrix.shape)
    for name, start, delta in method.updates():
        assert start.shape == delta.shape == deltas[name].shape


def test_what_trains_without_a_delta_is_named() -> None:
    method = adapted("full", Encoder("gpt2"))
    assert method.report() == {"trained_without_delta": "model.wpe.weight, model.wte.weight"}


def test_a_network_whose_matrices_are_all_measured_names_none() -> None:
    class Plain(nn.Module):
        width = 4

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv3d(2, 3, 2), nn.Linear(3, 4))

    method = adapted("full", Plain())
    assert method.report() == {}
    assert [delta.shape for _, delta in method.deltas()] == [(3, 16), (4, 3)]
