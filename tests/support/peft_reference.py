"""What tests hold LoRA against: a bare loop around peft's own layers, pooling and head written out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from merging import merge
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from bench.records.data import Example

STEPS, LR, EPS, DECAY = 20, 2e-3, 1e-7, 0.02
PLAIN = {"schedule": "constant", "warmup": 0.0, "clip": 0.0, "eps": EPS, "weight_decay": DECAY}
QV = ["query", "value"]
ALL_LINEAR = r".*encoder.*\.(query|key|value|dense)"


class Reference:
    """An encoder with peft's LoRA, mean pooling and a linear head."""

    def __init__(self, folder: Path, config: LoraConfig, dtype: torch.dtype) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = get_peft_model(AutoModel.from_pretrained(folder), config).to(dtype).eval()
        self.head = nn.Linear(self.model.config.hidden_size, 2, dtype=dtype)

    def layer(self, name: str) -> nn.Module:
        return self.model.base_model.model.get_submodule(name.removeprefix("model."))

    def copy_from(self, start: dict[str, Tensor]) -> None:
        """A, B, DoRA's magnitude and head as they were at the start of our run."""
        with torch.no_grad():
            self.head.weight.copy_(start["head.weight"])
            self.head.bias.copy_(start["head.bias"])
            names = [n.removesuffix(".factors.0") for n in start if n.endswith(".factors.0")]
            assert names
            for name in names:
                layer = self.layer(name.removeprefix("backbone."))
                layer.lora_A["default"].weight.copy_(start[f"{name}.factors.0"])
                layer.lora_B["default"].weight.copy_(start[f"{name}.factors.1"])
                if f"{name}.magnitude" in start:
                    layer.lora_magnitude_vector["default"].weight.copy_(start[f"{name}.magnitude"])

    def trained(self) -> list[nn.Parameter]:
        return [p for p in (*self.model.parameters(), *self.head.parameters()) if p.requires_grad]

    def logits(self, rows: Sequence[Example]) -> Tensor:
        pair = [row.text_pair for row in rows] if rows[0].text_pair is not None else None
        inputs = self.tokenizer([row.text for row in rows], pair, padding=True, return_tensors="pt")
        features = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"]
        means = [one[keep.bool()].mean(0) for one, keep in zip(features, mask, strict=True)]
        return self.head(torch.stack(means))

    def train(
        self,
        batches: Sequence[Sequence[Example]],
        *,
        rates: Sequence[float],
        eps: float = EPS,
        decay: float = DECAY,
        clip: float = 0.0,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> list[float]:
        """Losses of a step per batch; AdamW unless an optimiser is given, whose own rates then hold."""
        given = optimizer is not None
        optimizer = optimizer or torch.optim.AdamW(self.trained(), lr=rates[0], eps=eps, weight_decay=decay)
        losses: list[float] = []
        for rate, rows in zip(rates, batches, strict=True):
            if not given:
                optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss = F.cross_entropy(self.logits(rows), torch.tensor([int(row.label) for row in rows]))
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(self.trained(), clip)
            optimizer.step()
            losses.append(loss.item())
        return losses


def batches_of(run: Any, rows: Sequence[Example], steps: int) -> list[list[Example]]:
    return [[rows[i] for i in run.data.batches[step]] for step in range(steps)]


def assert_same(run: Any, reference: Reference, losses: Sequence[float], *, merged: float) -> None:
    """Losses to 1e-5 relative, scores, every product BA with its scale, and merged weights."""
    assert run.losses == pytest.approx(losses, rel=1e-5)
    moved = 0.0
    before = {n: layer.base.weight.detach().clone() for n, layer in run.method.layers()}
    for name, delta in run.method.deltas():
        theirs = reference.layer(name).get_delta_weight("default")
        assert torch.allclose(delta.dense(), theirs, rtol=0, atol=merged), name
        moved = max(moved, float(theirs.detach().abs().max()))
    assert moved > 100 * merged, "nothing was learned, so nothing was compared"
    plain = reference.model.merge_and_unload()
    for name, weight in merge(run.method).items():
        theirs = plain.get_submodule(name.removeprefix("model.")).weight
        assert torch.allclose(weight, theirs, rtol=0, atol=merged), name
        assert not torch.equal(weight, before[name])
    assert torch.allclose(run.method.head.weight, reference.head.weight, rtol=0, atol=merged)


def peft_config(rank: int, alpha: float, target: list[str] | str = QV, **options: Any) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=target, bias="none", **options)
