"""Adapters written for `peft` compute there what they computed here, and adapters of peft are a start for ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from merging import merge
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, matthews_corrcoef
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from bench.api.lowrank.fused import split_fused
from bench.api.lowrank.targets import find_targets
from bench.api.metrics import evaluate
from bench.api.peft import CONFIG, HEAD, TENSORS, open_folder, write_folder
from bench.api.task import TaskSpec
from bench.config.sections import HeadConfig, OptimConfig
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError
from bench.training.trainer import FILE

COMPRESSED = {"form": "compressed", "rank": 4, "init_scale": 0.5}
EXACT: list[tuple[str, dict[str, Any]]] = [
    ("lora", {}),
    ("lora", {"rank": 3, "alpha": 1.0, "target": "all-linear"}),
    ("lora", {"scaling": "none", "rank": 5, "init": "normal"}),
    ("lora", {"scaling": "rank-stabilized", "rank": 6, "lr_ratio": 4.0}),
]
"""Same tensors, same operations: equal bits. The others multiply in another order."""
FAMILY: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"dora": True, "rank": 3}),
    ("lora", {"init": "pissa", "rank": 3}),
    ("lora", {"init": "pissa", "dora": True, "scaling": "rank-stabilized", "rank": 2}),
    ("lora", {"init": "pissa", "scaling": "none", "rank": 2}),
]
CASES = [
    *EXACT,
    *FAMILY,
    ("deeplora", {}),
    ("deeplora", {"depth": 5, "rank": 3, "init_scale": 0.5}),
    ("deeplora", COMPRESSED),
    ("adalora", {"rank": 3}),
    ("adalora", {"rank": 1, "init_rank": 4, "tinit": 0, "tfinal": 0.2, "target": "all-linear", "alpha": 5.0}),
]
NAMES = [f"{name}-{'-'.join(map(str, options.values()))}" for name, options in CASES]


def exported(run: Any, spec: Any, folder: Path) -> Path:
    """The run's own file, translated."""
    kind = registry.load("methods", spec.method)
    tensors = load_file(run.directory / FILE)
    head = {key.removeprefix("head."): t for key, t in tensors.items() if key.startswith("head.")}
    write_folder(folder, *kind.peft(spec.options.method, tensors), head, {})
    return folder


@torch.no_grad()
def bare_logits(backbone: Path, adapter: Path, rows: Sequence[Any], pooling: str) -> Tensor:
    """A loop that knows nothing of this suite: transformers, peft, pooling and head; long texts first, 64 a time."""
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(backbone), str(adapter)).eval()
    head = load_file(adapter / HEAD)
    texts = [(row.text,) if row.text_pair is None else (row.text, row.text_pair) for row in rows]
    lengths = [len(tokenizer(*text)["input_ids"]) for text in texts]
    order = sorted(range(len(rows)), key=lambda i: -lengths[i])
    out = torch.zeros(len(rows), len(head["bias"]))
    for start in range(0, len(order), 64):
        chunk = order[start : start + 64]
        columns = [list(column) for column in zip(*(texts[i] for i in chunk), strict=True)]
        inputs = tokenizer(*columns, padding=True, return_tensors="pt")
        found = model(**inputs)
        if pooling == "mean":
            rows_of = zip(found.last_hidden_state, inputs["attention_mask"], strict=True)
            pooled = torch.stack([one[keep.bool()].mean(0) for one, keep in rows_of])
        else:
            pooled = found.pooler_output if pooling == "pooler" else found.last_hidden_state[:, 0]
        out[chunk] = F.linear(pooled, head["weight"], head["bias"])
    return out


def our_logits(run: Any) -> Tensor:
    """The trained network's, on the dev split."""
    run.method.eval()
    tokens = run.data.evaluation["dev"]
    out = torch.zeros(len(tokens.labels), run.method.head.out_features)
    with torch.no_grad():
        for batch in run.data.val_dataloader()[0]:
            out[batch["index"]] = run.method(batch["inputs"]).reshape(len(batch["index"]), -1)
    return out


def tensor_of(rows: Sequence[Any]) -> Tensor:
    return torch.tensor([row.label for row in rows])


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_a_run_scores_the_same_in_peft(lab: Any, tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    spec = lab.spec(name, options=options)
    run = lab.run(spec)
    run.method.trainer = None
    dev = lab.tasks[spec.task].dataset.evaluation["dev"]
    logits = bare_logits(lab.backbone.path, exported(run, spec, tmp_path / "adapter"), dev, "pooler")
    ours = our_logits(run)
    assert evaluate(lab.tasks[spec.task].spec, logits, tensor_of(dev)) == run.result.metrics.all["dev"]
    assert torch.equal(logits, ours) if (name, options) in EXACT else torch.allclose(logits, ours, rtol=0, atol=1e-6)
    truth, guess = [row.label for row in dev], logits.argmax(-1).tolist()
    assert run.result.metrics.all["dev"]["accuracy"] == pytest.approx(accuracy_score(truth, guess), rel=1e-6)
    assert run.result.metrics.all["dev"]["matthews"] == pytest.approx(matthews_corrcoef(truth, guess), rel=1e-6)
    plain = AutoModel.from_pretrained(lab.backbone.path).eval()
    with torch.no_grad():
        batch = next(iter(run.data.val_dataloader()[0]))
        unadapted = run.method.head(plain(**batch["inputs"]).pooler_output)
    assert (unadapted - ours[batch["index"]]).abs().max() > 1e-3, "the adapter must matter"


def test_layers_of_other_ranks_are_filled_up(lab: Any, tmp_path: Path) -> None:
    """peft's AdaLoRA has one initial rank for all layers, and its scale is α over that."""
    _, method = lab.build(lab.spec("adalora", options={"rank": 3, "alpha": 2.0}))
    small, tensors = "backbone.model.encoder.layer.0.attention.self.query.factors", dict(method.export())
    generator = torch.Generator().manual_seed(6)
    tensors = {n: torch.randn(t.shape, generator=generator) * 0.2 if "factors" in n else t for n, t in tensors.items()}
    for i, cut in enumerate((slice(0, 2), slice(0, 2), (slice(None), slice(0, 2)))):
        tensors[f"{small}.{i}"] = tensors[f"{small}.{i}"][cut].contiguous()
    write_folder(tmp_path / "adapter", *method.peft(method.config, tensors), {}, {})
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(lab.backbone.path), str(tmp_path / "adapter")).eval()
    layer = model.base_model.model.encoder.layer[0].attention.self.query
    a, e, b = (tensors[f"{small}.{i}"] for i in range(3))
    assert torch.allclose(layer.get_delta_weight("default"), b @ (a * e) * 2.0 / (2 + 1e-5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_regression_with_a_frozen_head_too(lab: Any, tmp_path: Path, pooling: str) -> None:
    spec = lab.spec("lora", task="toy/scores", head={"pooling": pooling, "trainable": False})
    run = lab.run(spec)
    run.method.trainer = None
    dev = lab.tasks[spec.task].dataset.evaluation["dev"]
    adapter = exported(run, spec, tmp_path / "adapter")
    scores = bare_logits(lab.backbone.path, adapter, dev, pooling)
    assert torch.allclose(scores, our_logits(run), rtol=0, atol=1e-6)
    want = pearsonr(scores[:, 0].double(), [row.label for row in dev]).statistic
    assert run.result.metrics.all["dev"]["pearson"] == pytest.approx(want, abs=1e-6)
    assert load_file(adapter / HEAD)["bias"].abs() > 1, "it starts at the mean label, and stays"


def test_adaloras_ranks_are_those_of_pefts_layers(lab: Any, tmp_path: Path) -> None:
    """0 among them, and layers that began with different ranks."""
    spec = lab.spec("adalora", options={"rank": 1, "init_rank": 4, "tinit": 0, "tfinal": 0.2}, max_steps=30)
    run = lab.run(spec)
    tensors = {n: t.double() for n, t in run.method.export().items()}
    first = f"backbone.{run.result.ranks[0].layer}.factors"
    more = torch.Generator().manual_seed(0)
    for i, shape in enumerate([(6, 32), (6, 1), (32, 6)]):
        tensors[f"{first}.{i}"] = torch.randn(shape, generator=more, dtype=torch.float64)
    kind = registry.load("methods", "adalora")
    write_folder(tmp_path / "adapter", *kind.peft(spec.options.method, tensors), {}, {})
    pattern = json.loads((tmp_path / "adapter" / CONFIG).read_text())["rank_pattern"]
    plain = AutoModel.from_pretrained(lab.backbone.path).double()
    model = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).base_model.model
    ranks = {r.layer: r.nominal for r in run.result.ranks}
    assert min(ranks.values()) == 0 < max(ranks.values())
    for name in ranks:
        a, e, b = (tensors[f"backbone.{name}.factors.{i}"].numpy() for i in range(3))
        layer = model.get_submodule(name.removeprefix("model."))
        assert layer.lora_E["default"].shape == ((6 if name in first else ranks[name]), 1)
        assert pattern[f"{name.removeprefix('model.')}.lora_E"] == [*(e[:, 0] != 0), False, False][:6]
        want = 32.0 / (len(e) + 1e-5) * b @ (e * a)
        found = layer.get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-5 if name in first else 1e-7)


@pytest.mark.parametrize("name", ["full", "linear"])
def test_what_peft_has_no_method_for_is_said(lab: Any, name: str) -> None:
    kind = registry.load("methods", name)
    with pytest.raises(UsageError, match="no equivalent in peft") as caught:
        kind.peft(kind.Config(), {})
    assert caught.value.known and caught.value.todo


class Vision(nn.Module):
    """Images (B, 3, 16, 16) → features (B, 24)."""

    width = 24

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        size: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
        self.model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, **size).double()

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


def vision_lora(name: str = "lora", **options: Any) -> Any:
    kind = registry.load("methods", name)
    task = TaskSpec(name="t", version=1, modality="image", num_classes=2, metrics=("accuracy",), primary=("accuracy",))
    config = kind.Config(**options)
    method = kind(Vision(), task, config, head=HeadConfig(), optim=OptimConfig(), lr=1e-3, seed=0)
    method.adapt({"inputs": {"images": torch.randn(2, 3, 16, 16, dtype=torch.float64)}})
    with torch.no_grad():
        for _, layer in method.layers():
            for factor in list(layer.factors)[name == "lora" :]:
                factor.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    return method.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "rank", "alpha"),
    [
        ({}, 4, 12),
        ({"scaling": "rank-stabilized"}, 4, 6 * 2**0.5),
        ({"init": "pissa"}, 8, 24),
        ({"name": "adalora", "init_rank": 2}, 4, 12 / (1 + 5e-6)),
    ],
)
def test_query_and_value_of_a_fused_projection(
    tmp_path: Path, options: dict[str, Any], rank: int, alpha: float
) -> None:
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    method, plain = vision_lora(rank=2, alpha=6.0, **options), Vision().eval()
    weights = {n: m for n, m in plain.named_modules() if n.endswith("qkv")}
    assert [n for n, _ in method.layers()] == [f"{n}.{p}" for n in weights for p in ("query", "value")]
    triplets = 4 * 2 if "name" in options else 0
    own = 4 * 2 * 48 + triplets + 2 * 25
    assert method.parameter_counts()["total"] == sum(p.numel() for p in plain.parameters()) + own
    want = method.backbone(images)
    write_folder(tmp_path / "adapter", *method.peft(method.config, method.export()), {}, {})
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"]) == (rank, pytest.approx(alpha))
    theirs = PeftModel.from_pretrained(plain.model, str(tmp_path / "adapter")).eval()
    assert torch.allclose(theirs(images), want, rtol=0, atol=1e-9)
    for name, fused in theirs.base_model.model.named_modules():
        if name.endswith("qkv"):
            change = fused.get_delta_weight("default")
            assert not change[24:48].any(), "the rows of the keys stay"
            deltas = dict(method.deltas())
            for rows, part in ((slice(0, 24), "query"), (slice(48, 72), "value")):
                assert torch.allclose(change[rows], deltas[f"model.{name}.{part}"].dense(), rtol=0, atol=1e-12)
                assert change[rows].abs().max() > 0.1
    merge(method)
    assert torch.allclose(method.backbone(images), want, rtol=0, atol=1e-9)


def test_dora_on_parts_of_a_fused_projection_is_refused() -> None:
    method = vision_lora(rank=2, dora=True)
    with pytest.raises(UsageError, match="fused projection"):
        method.peft(method.config, method.export())


def test_modernberts_fused_projection() -> None:
    from transformers import ModernBertConfig, ModernBertModel

    torch.manual_seed(0)
    small: dict[str, Any] = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    network = ModernBertModel(ModernBertConfig(**small, intermediate_size=32, pad_token_id=0)).double().eval()
    ids = torch.randint(1, 50, (2, 7))
    want = network(ids).last_hidden_state
    split_fused(network, {"input_ids": ids})
    assert torch.allclose(network(ids).last_hidden_state, want, rtol=0, atol=1e-12)
    names = [name.rpartition(".")[2] for name, _ in find_targets(network, "qv").layers]
    assert names == ["query", "value"] * 2


def test_a_fused_projection_can_be_adapted_whole(tmp_path: Path) -> None:
    method = vision_lora(rank=2, target="qkv$")
    assert [layer.factors[1].shape for _, layer in method.layers()] == [(72, 2)] * 2


@pytest.fixture
def theirs(lab: Any, tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """A model with an adapter by peft, its tensors far from their start, and the folder it was saved in."""

    def make(**options: Any) -> tuple[Any, Path]:
        torch.manual_seed(3)
        given: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": ["query", "value"], **options}
        model = get_peft_model(AutoModel.from_pretrained(lab.backbone.path), LoraConfig(**given)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.2)
        model.save_pretrained(tmp_path / "theirs")
        return model, tmp_path / "theirs"

    return make


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "patterns": {"rank_pattern": {"layer.0.attention.self.query": 2}, "alpha_pattern": {"value": 5}},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True, "use_rslora": True, "rank_pattern": {"value": 2}},
    "wide": {"target_modules": r"encoder\.layer\..*(query|dense)"},
}


@pytest.mark.parametrize("form", FORMS)
def test_an_adapter_of_peft_is_a_start(lab: Any, theirs: Any, form: str) -> None:
    model, folder = theirs(**FORMS[form])
    kind = registry.load("methods", "lora")
    decided = kind.from_peft(open_folder(folder))
    assert decided["rank"] == 4
    data, method = lab.build(lab.spec("lora", options={**decided, "start": str(folder)}))
    inputs = data.first_batch()["inputs"]
    with torch.no_grad():
        want = model(**inputs).pooler_output
        assert torch.allclose(method.eval().backbone(**inputs), want, rtol=0, atol=1e-6)
        _, fresh = lab.build(lab.spec("lora", options=decided))
        assert not torch.allclose(fresh.eval().backbone(**inputs), want, atol=1e-2)


@pytest.mark.parametrize("form", ["plain", "rslora", "dora"])
def test_there_and_back_keeps_every_bit(lab: Any, theirs: Any, tmp_path: Path, form: str) -> None:
    _, folder = theirs(**FORMS[form])
    kind = registry.load("methods", "lora")
    config = kind.Config(**kind.from_peft(open_folder(folder)), start=str(folder))
    _, method = lab.build(lab.spec("lora", options=vars(config)))
    write_folder(tmp_path / "back", *kind.peft(config, method.export()), {}, {})
    first, second = (load_file(where / TENSORS) for where in (folder, tmp_path / "back"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(not key.endswith("magnitude_vector") for key in first) == (form != "dora")
    ours, original = (json.loads((where / CONFIG).read_text()) for where in (tmp_path / "back", folder))
    assert (ours["r"], ours["lora_alpha"]) == (original["r"], original["lora_alpha"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias=all"),
        ({"modules_to_save": ["pooler"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
    ],
)
def test_more_than_a_plain_lora_is_refused(theirs: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match="not a plain LoRA") as caught:
        registry.load("methods", "lora").from_peft(open_folder(theirs(**options)[1]))
    assert text in caught.value.known


@pytest.mark.parametrize("name", ["full", "deeplora"])
def test_a_method_that_starts_from_nothing_says_so(theirs: Any, name: str) -> None:
    with pytest.raises(UsageError, match="cannot start from an adapter"):
        registry.load("methods", name).from_peft(open_folder(theirs()[1]))


def test_an_adapter_of_other_layers_is_refused(lab: Any, theirs: Any) -> None:
    _, folder = theirs(layers_to_transform=[1])
    decided = registry.load("methods", "lora").from_peft(open_folder(folder))
    with pytest.raises(UsageError, match="other layers") as caught:
        lab.build(lab.spec("lora", options={**decided, "start": str(folder)}))
    assert r"encoder.layer.0.attention.self.query" in caught.value.known
    lab.build(lab.spec("lora", options={**decided, "start": str(folder), "target": r"layer\.1\.\S+(query|value)"}))


def test_an_adapter_of_another_width_is_refused(lab: Any, theirs: Any) -> None:
    _, folder = theirs()
    from safetensors.torch import save_file

    wide = {k: F.pad(t, (0, 1)) if "lora_A" in k else t for k, t in load_file(folder / TENSORS).items()}
    save_file(wide, folder / TENSORS)
    with pytest.raises(UsageError, match="does not fit"):
        lab.build(lab.spec("lora", options={"rank": 4, "start": str(folder)}))


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (_remove(CONFIG), "no adapter_config.json"),
        (_remove(TENSORS), "no adapter_model.safetensors"),
        (lambda folder: (folder / CONFIG).write_text("{"), "is not JSON"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "not a configuration of peft"),
        (lambda folder: (folder / TENSORS).write_bytes(b"pickle?"), "is not a safetensors file"),
        (lambda folder: folder.rename(folder.parent / "gone"), "not a folder of a peft adapter"),
    ],
)
def test_a_broken_directory_is_named(theirs: Any, harm: Callable[[Path], None], text: str) -> None:
    _, folder = theirs()
    harm(folder)
    with pytest.raises(EnvironmentProblem) as caught:
        open_folder(folder)
    assert text in str(caught.value) and caught.value.todo


def test_the_hash_is_of_the_content(theirs: Any, tmp_path: Path) -> None:
    _, folder = theirs()
    first = open_folder(folder).hash
    folder.rename(tmp_path / "elsewhere")
    assert open_folder(tmp_path / "elsewhere").hash == first
    config = json.loads((tmp_path / "elsewhere" / CONFIG).read_text())
    (tmp_path / "elsewhere" / CONFIG).write_text(json.dumps({**config, "lora_alpha": 7}))
    assert open_folder(tmp_path / "elsewhere").hash != first
