"""Second moments of activations against numpy's SVD of all features kept."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.spectra.tracking.activations import ActivationMoments, moment_spectrum


class Gives(nn.Module):
    """Gives back what it gets."""

    def forward(self, x: Any) -> Any:
        return x


def listening(module: nn.Module, **options: Any) -> ActivationMoments:
    moments = ActivationMoments({"it": module}, timed=nullcontext, **{"channels_last": False} | options)
    moments.attach()
    return moments


def values(moments: ActivationMoments) -> tuple[np.ndarray[Any, Any], int]:
    total, rows = moments.totals()["it"]
    return moment_spectrum(total, rows).numpy(), rows


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Features of decaying size, in float32."""
    width = torch.logspace(0, -2, shape[-1])
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * width


def want(rows: Tensor) -> np.ndarray[Any, Any]:
    return np.linalg.svd(rows.double().numpy(), compute_uv=False) / len(rows) ** 0.5


def test_rows_of_several_batches() -> None:
    module = Gives()
    moments = listening(module)
    parts = [draw(9, 5, seed=i) for i in range(3)]
    for part in parts:
        moments.begin(attention_mask=None, weighted=True)
        module(part)
        moments.counting = False
        module(part * 100)  # evaluation on the way
    found, rows = values(moments)
    assert rows == 27 and np.allclose(found, want(torch.cat(parts)), rtol=1e-9)
    moments.clear()
    assert moments.totals() == {}


def test_tokens_that_are_padding_do_not_count() -> None:
    module, x = Gives(), draw(4, 6, 5)
    moments = listening(module)
    mask = torch.arange(6) < torch.tensor([6, 2, 3, 1])[:, None]
    moments.begin(attention_mask=mask.long(), weighted=True)
    module((x, None))
    found, rows = values(moments)
    assert rows == 12 and np.allclose(found, want(x[mask]), rtol=1e-9)
    moments.clear()
    module(x[:, :3])  # as many tokens as a mask does not speak of
    assert values(moments)[1] == 12 and np.allclose(values(moments)[0], want(x[:, :3].flatten(0, 1)), rtol=1e-9)


@pytest.mark.parametrize("last", [False, True])
def test_every_position_of_an_image_is_a_row(last: bool) -> None:
    module, x = Gives(), draw(2, 3, 4, 5)  # (B, H, W, D)
    moments = listening(module, channels_last=last)
    moments.begin(attention_mask=None, weighted=True)
    module(x if last else x.movedim(-1, 1))
    found, rows = values(moments)
    assert rows == 24 and np.allclose(found, want(x.reshape(-1, 5)), rtol=1e-9)


@pytest.mark.parametrize("last", [False, True])
def test_the_channels_are_as_many_as_a_norm_in_the_module_has(last: bool) -> None:
    """GCViT and TinyViT have channels last in their blocks and say so nowhere: moments ran along the image's height."""
    module, x = Gives(), draw(2, 3, 4, 5)
    module.norm = nn.LayerNorm(5)
    moments = listening(module, channels_last=not last)  # what the network says otherwise counts less
    moments.begin(attention_mask=None, weighted=True)
    module(x if last else x.movedim(-1, 1))
    found, rows = values(moments)
    assert rows == 24 and np.allclose(found, want(x.reshape(-1, 5)), rtol=1e-9)


def test_what_does_not_count() -> None:
    """An example that only stands in, evaluation mode, an output that is replayed, a number, no tensor."""
    module, x = Gives(), draw(8, 5)
    moments = listening(module)
    moments.begin(attention_mask=None, weighted=False)
    module(x)
    total, rows = moments.totals()["it"]
    assert rows == 0 and total.shape == (5, 5) and not total.any(), "its shape is known, for the sum over devices"
    moments.begin(attention_mask=None, weighted=True)
    module.eval()(x)
    module.train().forward = lambda *args: x
    module(x)
    del module.forward
    module(torch.tensor(3.0))
    module({"x": x})
    module([])
    assert moments.totals()["it"][1] == 0
    module(x)
    assert moments.totals()["it"][1] == 8
    moments.detach()
    module(x)
    assert moments.totals()["it"][1] == 8


def test_state_goes_on_elsewhere() -> None:
    module, (first, second) = Gives(), (draw(9, 5, seed=i) for i in range(2))
    moments = listening(module)
    moments.begin(attention_mask=None, weighted=True)
    module(first)
    state = copy.deepcopy(moments.state())
    module(second)
    other = listening(Gives())
    other.load(state)
    other.begin(attention_mask=None, weighted=True)
    other.modules["it"](second)
    assert np.array_equal(values(other)[0], values(moments)[0]) and values(other)[1] == 18


def test_a_copy_of_a_module_copies_no_sums() -> None:
    module = Gives()
    listening(module).sums["it"] = torch.zeros(3, 3)
    [hook], [copied] = (m._forward_hooks.values() for m in (module, copy.deepcopy(module)))
    assert copied is hook


def test_a_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        moment_spectrum(torch.full((2, 2), float("nan")), 1)
