"""Every tuner of peft that adapts layers, as a method: as peft makes it, seeded, merged, exported; VeRA's formula."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from merging import merge
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft_options import SMALL
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel

from bench.api.peft import write_folder
from bench.config.help import describe
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError
from bench.training.trainer import FILE
from methods.peft_tuner.config import LEFT_OUT, UNSUPPORTED, PeftTunerConfig, tuners
from methods.peft_tuner.method import PeftTuner

NAMES = sorted(tuners())
QV = [f"encoder.layer.{i}.attention.self.{part}" for i in range(2) for part in ("query", "value")]
KEYS = [f"encoder.layer.{i}.{part}" for i in range(2) for part in ("attention.self.key", "attention.self.value")]
NORMS = ["embeddings.LayerNorm"] + [
    f"encoder.layer.{i}.{p}.LayerNorm" for i in range(2) for p in ("attention.output", "output")
]


def config_of(name: str) -> Any:
    return PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(name.upper())]


def reference(folder: Path, name: str, seed: int) -> Any:
    """The same adapter, made by peft alone."""
    network = AutoModel.from_pretrained(folder)
    torch.manual_seed(seed)
    second = [f"encoder.layer.{i}.output.dense" for i in range(2)]
    targets = {"ln_tuning": NORMS, "ia3": KEYS + second}.get(name, QV)
    config = config_of(name)(target_modules=targets, **SMALL.get(name, {}))
    if name == "ia3":
        config.feedforward_modules = set(second)
    return peft.get_peft_model(network, config)


def trained(module: torch.nn.Module) -> dict[str, Tensor]:
    return {n.partition("base_model.")[2]: p for n, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def shake(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_every_tuner_is_what_peft_makes(lab: Any, name: str) -> None:
    data, method = lab.build(lab.spec(f"peft:{name}", options=SMALL.get(name, {}), head={"trainable": False}, seed=3))
    theirs = reference(lab.backbone.path, name, seed=3)
    ours, wanted = trained(method), trained(theirs)
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(ours[n], wanted[n]) for n in ours)
    assert method.parameter_counts()["trainable"] == theirs.get_nb_trainable_parameters()[0] > 0
    shake(method.backbone)
    shake(theirs)
    inputs = data.first_batch()["inputs"]
    with torch.no_grad():
        want = theirs.eval()(**inputs).pooler_output
        assert torch.allclose(method.eval().backbone(**inputs), want, rtol=0, atol=1e-6)


EXPORTED = ("boft", "ia3", "ln_tuning", "loha", "lora", "oft", "randlora", "tinylora", "vblora", "vera")
MERGING = [n for n in NAMES if n != "lily"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MERGING)
@torch.no_grad()
def test_merged_is_the_same_network(lab: Any, name: str) -> None:
    data, method = lab.build(lab.spec(f"peft:{name}", options=SMALL.get(name, {})))
    method.eval()
    inputs = data.first_batch()["inputs"]
    start = method.backbone(**inputs)
    shake(method.backbone)
    want = method.backbone(**inputs)
    assert (want - start).abs().max() > 1e-4
    deltas = dict(method.deltas())
    before = {n: layer.base.weight.clone() for n, layer in method.layers() if n in deltas}
    merged = merge(method)
    assert torch.allclose(method.backbone(**inputs), want, rtol=0, atol=2e-5)
    for layer, delta in deltas.items():
        assert torch.allclose(merged[layer] - before[layer], delta.dense(), rtol=0, atol=2e-6), layer
    assert bool(deltas) == (name != "ln_tuning")


def test_what_cannot_merge_has_no_delta(lab: Any) -> None:
    _, method = lab.build(lab.spec("peft:lily"))
    shake(method)
    assert [*method.deltas()] == []


@torch.no_grad()
def test_vera_is_its_formula(lab: Any) -> None:
    """ΔW = Λ_b·B·Λ_d·A with frozen A, B shared by all layers and diagonal Λ (arXiv 2310.11454, equation 2)."""
    options = {"r": 5, "d_initial": 0.3}
    data, method = lab.build(lab.spec("peft:vera", options=options))
    shake(method)
    method.double().eval()
    tensors = method.export()
    a, b = (tensors[f"backbone.model.base_model.vera_{m}.default"] for m in "AB")
    assert (a.shape, b.shape) == ((5, 32), (32, 5))
    network = AutoModel.from_pretrained(lab.backbone.path).double().eval()
    deltas = dict(method.deltas())
    for layer in QV:
        inside = f"backbone.model.base_model.model.{layer}.vera_lambda"
        lambda_b, lambda_d = torch.diag(tensors[f"{inside}_b.default"]), torch.diag(tensors[f"{inside}_d.default"])
        update = lambda_b @ b @ lambda_d @ a
        assert torch.allclose(deltas[f"model.{layer}"].dense(), update, rtol=0, atol=1e-12)
        assert update.abs().max() > 1e-2
        network.get_submodule(layer).weight += update
    inputs = data.first_batch()["inputs"]
    assert torch.allclose(method.backbone(**inputs), network(**inputs).pooler_output, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["vera", "loha", "hra"])
def test_frozen_parts_and_starts_follow_the_seed(lab: Any, name: str) -> None:
    """Whatever was drawn before; that another process resumes it bit for bit is in test_resume.py."""
    builds: list[dict[str, Tensor]] = []
    for seed, noise in ((1, 0), (1, 77), (2, 0)):
        spec = lab.spec(f"peft:{name}", options=SMALL.get(name, {}), seed=seed)
        original = PeftTuner.adapt

        def adapt(self: Any, batch: Any, noise: int = noise, original: Any = original) -> None:
            torch.rand(noise)
            original(self, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PeftTuner, "adapt", adapt)
            builds.append({n: t.clone() for n, t in lab.build(spec)[1].state_dict().items() if "head" not in n})
    first, again, other = builds
    assert all(torch.equal(first[n], again[n]) for n in first)
    drawn = any(not torch.equal(first[n], other[n]) for n in first)
    assert drawn == (name != "vera"), "VeRA draws from a key of its own"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in EXPORTED] + [("lora", {"init_lora_weights": start}) for start in ("pissa", "olora")],
)
def test_an_exported_run_is_an_adapter_of_peft(lab: Any, tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    spec = lab.spec(f"peft:{name}", max_steps=3, options=SMALL.get(name, {}) | options)
    run = lab.run(spec)
    kind = registry.load("methods", spec.method)
    written = kind.peft(spec.options.method, load_file(run.directory / FILE))
    write_folder(tmp_path / "adapter", *written, {}, {})
    network = AutoModel.from_pretrained(lab.backbone.path)
    plain = AutoModel.from_pretrained(lab.backbone.path).eval()
    theirs = peft.PeftModel.from_pretrained(network, str(tmp_path / "adapter")).eval()
    inputs = run.data.first_batch()["inputs"]
    with torch.no_grad():
        want = run.method.eval().backbone(**inputs)
        assert torch.equal(theirs(**inputs).pooler_output, want)
        assert not torch.allclose(plain(**inputs).pooler_output, want, rtol=0, atol=1e-5)


def test_an_adapter_that_does_not_name_its_layers_is_refused(lab: Any) -> None:
    _, method = lab.build(lab.spec("peft:unilora"))
    with pytest.raises(UsageError, match="does not name its layers") as caught:
        method.peft(method.config, method.export())
    assert "save" in caught.value.todo


def test_a_random_start_that_peft_would_draw_again_is_not_exported(lab: Any) -> None:
    _, method = lab.build(lab.spec("peft:lora", options={"init_lora_weights": "pissa_niter_4"}))
    with pytest.raises(UsageError, match="pissa_niter_4 is no adapter of peft"):
        method.peft(method.config, method.export())


@pytest.mark.parametrize("name", NAMES)
def test_options_and_defaults_are_pefts(name: str) -> None:
    real = {f.name: f for f in dataclasses.fields(config_of(name))}
    target, *options = describe("methods", f"peft:{name}").options
    assert target.name == "target"
    assert {o.name: o.default for o in options} == {o.name: real[o.name].default for o in options}
    for option in options:
        assert option.help == " ".join(str(real[option.name].metadata.get("help", "")).split())
    plain = {n for n, f in real.items() if isinstance(f.default, str | int | float) and n not in LEFT_OUT}
    common = {f.name for f in dataclasses.fields(peft.PeftConfig)}
    assert {o.name for o in options} >= plain - common


def test_no_tuner_is_forgotten() -> None:
    """What is not offered learns prompts, or has its reason in `UNSUPPORTED`."""
    import peft.mapping as mapping

    known = {kind.value.lower() for kind in mapping.PEFT_TYPE_TO_TUNER_MAPPING}
    prompts = {
        k.value.lower() for k, c in PEFT_TYPE_TO_CONFIG_MAPPING.items() if issubclass(c, peft.PromptLearningConfig)
    }
    assert set(NAMES) == known - prompts - set(UNSUPPORTED)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("c3a", {}, "block size"),
        ("vera", {"r": 0}, "division by zero"),
        ("ln_tuning", {"target": "no-such-layer"}, "linear layers"),
        ("vera", {"target": "("}, "not a regular expression"),
        ("vera", {"target": "LayerNorm"}, "No layers types compatible"),
    ],
)
def test_what_peft_refuses_is_a_usage_error(lab: Any, name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        lab.build(lab.spec(f"peft:{name}", options=options))
    assert text in str(caught.value)
    assert caught.value.todo


def test_unknown_tuners_and_those_for_others() -> None:
    with pytest.raises(UsageError, match="unknown method 'peft:vero'") as caught:
        registry.load_config("methods", "peft:vero")
    assert "vera, waveft" in caught.value.known and "Did you mean 'vera'?" in caught.value.todo
    with pytest.raises(UsageError, match="no method 'peft:adalora'") as caught:
        registry.load("methods", "peft:adalora")
    assert "--method adalora" in caught.value.known


def test_without_peft_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tuners.cache_clear()
    PeftTunerConfig.of.cache_clear()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EnvironmentProblem, match="peft is not installed") as caught:
        registry.load_config("methods", "peft:vera")
    assert "lowrank-bench[peft]" in caught.value.todo


def test_ranks_are_recorded(lab: Any) -> None:
    run = lab.run(lab.spec("peft:vera", options={"r": 4}))
    assert [row.layer for row in run.result.ranks] == [f"model.{layer}" for layer in QV]
    assert all(row.energy90 <= 4 and math.isfinite(row.norm) for row in run.result.ranks)
