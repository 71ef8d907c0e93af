"""Exported runs, loaded in a process that cannot import this suite, give the outputs of the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from bench.cli import main
from bench.core.errors import CHECK, USAGE, CheckFailed
from bench.deploy import export as exporting
from bench.deploy.loaders import Loader
from bench.deploy.restore import open_run
from bench.records.record import locate

Bench = Callable[..., Any]
BARE = Path(__file__).parents[1] / "support" / "bare.py"
ALL = ("--set", "method.target=all-linear", "--lr", "0.01")
DEEP = (*ALL, "--set", "method.init_scale=0.5")
DORA = (*ALL, "--set", "method.dora=true")
MEAN = (*ALL, "--set", "head.pooling=mean")
SAVED = ("--set", "runtime.save=all")
RUNS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "lora": ("lora", "cola", "peft", ALL),
    "dora": ("lora", "mrpc", "peft", DORA),
    "adalora": ("adalora", "cola", "peft", ALL),
    "deeplora": ("deeplora", "cola", "peft", DEEP),
    "lora by the mean": ("lora", "cola", "peft", MEAN),
    "lora on RoBERTa": ("lora", "cola", "peft", ALL),
    "dora merged": ("lora", "mrpc", "merged", DORA),
    "deeplora merged": ("deeplora", "cola", "merged", DEEP),
    "full": ("full", "cola", "merged", (*SAVED, "--lr", "0.001")),
    "linear": ("linear", "stsb", "merged", ("--set", "method.standardise=true", "--lr", "0.01")),
    "lora by the mean merged": ("lora", "mrpc", "merged", MEAN),
    "adapter": ("adapter", "cola", "adapter", ("--lr", "0.01")),
}
"""Method, task of GLUE, form, and flags."""
MORE: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "vera": ("peft:vera", "cola", "peft", (*ALL, "--set", "method.r=4")),
    "lora merged": ("lora", "cola", "merged", ALL),
    "adalora merged": ("adalora", "cola", "merged", ALL),
    "lowrank": ("lowrank", "cola", "merged", (*SAVED, "--lr", "0.01", "--set", "method.rank=4")),
    "bitfit": ("bitfit", "cola", "merged", ("--lr", "0.01")),
    "vera merged": ("peft:vera", "cola", "merged", (*ALL, "--set", "method.r=4")),
    "adapterdrop": ("adapterdrop", "mrpc", "adapter", ("--lr", "0.01", "--set", "method.n=1")),
    "lora on RoBERTa merged": ("lora", "cola", "merged", ALL),
}
LABELS = {"cola": {"unacceptable", "acceptable"}, "mrpc": {"not_equivalent", "equivalent"}}


@pytest.fixture(scope="module")
def lively_roberta(lively_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa with a pooler, which transformers' classifier for it does not have."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("roberta") / "lively-roberta"
    tokenizer = AutoTokenizer.from_pretrained(lively_bert)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = RobertaConfig(
        vocab_size=len(tokenizer), intermediate_size=64, max_position_embeddings=130, type_vocab_size=2, **sizes
    )
    model = RobertaModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows(glue: Path, task: str) -> tuple[list[list[str]], list[int]]:
    """Texts, one list or two, and labels of a dev split, read from its file."""
    folder, texts, label = {"cola": ("CoLA", (3,), 1), "mrpc": ("MRPC", (3, 4), 0), "stsb": ("STS-B", (7, 8), 9)}[task]
    lines = (glue / folder / "dev.tsv").read_text(encoding="utf-8-sig").splitlines()[task != "cola" :]
    cells = [line.split("\t") for line in lines]
    return [[row[i] for row in cells] for i in texts], [int(float(row[label])) for row in cells]


@torch.inference_mode()
def run_outputs(folder: Path, runs: Path, texts: list[list[str]]) -> np.ndarray:
    """Outputs (N, k) of the run itself."""
    record, _ = locate(runs, folder.name)
    run = open_run(record, folder, runs=runs)
    read = run.backbone.tokenizer()(*texts, truncation=True, max_length=24, padding=True, return_tensors="pt")
    outputs = run.method()(dict(read))
    return outputs.double().reshape(len(texts[0]), -1).numpy()


@pytest.mark.parametrize("exports", [RUNS, pytest.param(MORE, marks=pytest.mark.slow)], ids=["main", "more"])
def test_outputs_are_those_of_the_run(
    bench: Bench,
    command: Any,
    glue: Path,
    lively_bert: Path,
    lively_roberta: Path,
    tmp_path: Path,
    exports: dict[str, tuple[str, str, str, tuple[str, ...]]],
) -> None:
    """One process for all, since it takes long to start."""
    jobs: list[dict[str, Any]] = []
    made: dict[str, Any] = {}
    for name, (method, task, form, flags) in exports.items():
        backbone = lively_roberta if "RoBERTa" in name else lively_bert
        words = ("--method", method, "--task", f"glue/{task}", *flags, "--max-steps", "12")
        found = bench(*words, backbone=str(backbone), budget=(), out=tmp_path / name)
        made[name] = found.only()
        place = tmp_path / "exported" / name
        where = (f"--{form}", str(place), "--runs", str(found.folder))
        outcome = command("export", made[name].run_id, *where, folder=tmp_path)
        assert outcome.code == 0, (name, outcome.err)
        texts, _ = rows(glue, task)
        whole = form == "merged" and "mean" not in name
        job = {"folder": str(place), "texts": texts[0], "pairs": texts[1:] and texts[1]}
        jobs.append({**job, "pipeline": whole and task == "cola"})
    loaded = dict(zip(exports, load(jobs, tmp_path), strict=True))
    for name, (_, task, form, _) in exports.items():
        texts, labels = rows(glue, task)
        record, outputs = made[name], np.asarray(loaded[name]["outputs"])
        expected = run_outputs(tmp_path / name / record.run_id, tmp_path / name, texts)
        assert np.abs(outputs - expected).max() <= 1e-6 * max(1, np.abs(expected).max()), name
        note = json.loads((tmp_path / "exported" / name / "bench.json").read_text())
        assert (note["form"], note["run_id"]) == (form, record.run_id)
        assert note["base"]["weights_hash"] == record.backbone.weights_hash
        if task == "stsb":
            continue
        assert set(note["id2label"].values()) == LABELS[task]
        guess = outputs.argmax(1)
        score = matthews_corrcoef(labels, guess) if task == "cola" else accuracy_score(labels, guess)
        assert record.metrics.all["dev"]["matthews" if task == "cola" else "accuracy"] == pytest.approx(score, abs=1e-6)
        if given := loaded[name].get("pipeline"):
            odds = np.exp(outputs - outputs.max(1, keepdims=True))
            chances = [one["acceptable"] for one in given]
            assert np.allclose(chances, (odds / odds.sum(1, keepdims=True))[:, 1], atol=1e-6), name
        named = "AutoPeftModelForSequenceClassification" in (tmp_path / "exported" / name / "README.md").read_text()
        assert named == (form == "peft" and "mean" not in name)
        assert bool(note["architecture"]) == (form != "adapter" and "mean" not in name)
    assert sum("pipeline" in one for one in loaded.values()) >= 2
    assert max(len(set(np.asarray(one["outputs"]).argmax(1))) for one in loaded.values()) > 1, "not all alike"


def load(jobs: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    """What the lines of each README give, in a process of its own that knows only site-packages."""
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    argv = [sys.executable, "-P", str(BARE), str(tmp_path / "jobs.json"), str(tmp_path / "out.json")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    out = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr[-3000:]
    return json.loads((tmp_path / "out.json").read_text())


def test_a_process_with_this_suite_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("```python\nimport bench.core.errors\n```\n")
    with pytest.raises(AssertionError, match=r"bench is imported"):
        load([{"folder": str(tmp_path), "texts": ["a"]}], tmp_path)


def test_networks_of_images(command: Any, tmp_path: Path) -> None:
    """A ViT that is built has a whole form; timm's pretrained one also an adapter, and bottlenecks."""
    import timm

    weights, pictures = tmp_path / "weights", tmp_path / "pictures"
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0)
    timm.models.save_for_hf(model, str(weights), safe_serialization=True)
    pictures.mkdir()
    draw = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(draw.integers(0, 256, (32, 32), dtype=np.uint8)).save(pictures / f"{number}.png")
    small = ("--set", "backbone.width=16", "--set", "backbone.depth=1", "--set", "backbone.heads=2")
    large = ("--set", "task.size=32", "--set", f"backbone.weights={weights}")
    runs: dict[str, tuple[str, ...]] = {
        "merged": ("--method", "lora", "--backbone", "vit", *small, "--set", "task.size=32"),
        "peft": ("--method", "lora", "--backbone", "timm:test_vit", *large),
        "adapter": ("--method", "adapter", "--backbone", "timm:test_vit", *large),
    }
    jobs: list[dict[str, Any]] = []
    expected: list[np.ndarray] = []
    names = [str(file) for file in sorted(pictures.iterdir())]
    for words in runs.values():
        budget = ("--max-steps", "3", "--lr", "0.01", "--accelerator", "cpu", "--batch-size", "8")
        done = command("run", "--task", "digits", *words, *budget, "--out", str(tmp_path / "runs"), folder=tmp_path)
        assert done.code == 0, done.err
    for form, words in runs.items():
        found, _ = locate(tmp_path / "runs", run_of(tmp_path / "runs", words[1], words[3]))
        where = ("--runs", str(tmp_path / "runs"))
        assert command("export", found.run_id, f"--{form}", str(tmp_path / form), *where, folder=tmp_path).code == 0
        out = tmp_path / f"{form}.jsonl"
        told = command("predict", found.run_id, str(pictures), "--out", str(out), *where, folder=tmp_path)
        assert told.code == 0, told.err
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["image"] for line in lines] == [Path(name).name for name in names]
        expected.append(np.asarray([[line[f"p_{digit}"] for digit in range(10)] for line in lines]))
        jobs.append({"folder": str(tmp_path / form), "images": names})
    for form, one, wanted in zip(runs, load(jobs, tmp_path), expected, strict=True):
        odds = np.exp(np.asarray(one["outputs"]))
        assert np.allclose(odds / odds.sum(1, keepdims=True), wanted, atol=1e-6), form
        assert np.ptp(wanted, 0).max() > 1e-4, "the images differ"


def run_of(runs: Path, method: str, backbone: str) -> str:
    from bench.records import record

    [found] = [r for r in record.load_all(runs)[0] if (r.spec.method, r.spec.backbone) == (method, backbone)]
    return found.run_id


def test_a_number_is_on_the_users_scale_and_several_classes_are_sigmoids(
    bench: Bench, command: Any, lively_bert: Path, tmp_path: Path
) -> None:
    texts = [" ".join("abc"[(i * k) % 3] for k in range(1, 6)) + f" {i}" for i in range(40)]
    prices = "".join(json.dumps({"text": text, "label": 500.5 + 9 * i}) + "\n" for i, text in enumerate(texts))
    kinds = [[name for name in "abc" if text.count(name) >= 2] for text in texts]
    several = "".join(json.dumps({"text": t, "label": k}) + "\n" for t, k in zip(texts, kinds, strict=True))
    jobs: list[dict[str, Any]] = []
    tables: list[list[dict[str, Any]]] = []
    for name, content, more in (("prices", prices, ()), ("several", several, ("--set", "task.kind=multilabel"))):
        (tmp_path / f"{name}.jsonl").write_text(content)
        words = ("--method", "lora", "--task", str(tmp_path / f"{name}.jsonl"), *ALL, *more)
        done = bench(*words, data=None, backbone=str(lively_bert), out=tmp_path / f"runs-{name}")
        where = ("--runs", str(done.folder))
        run, place, out = done.only().run_id, tmp_path / f"{name}-model", tmp_path / f"{name}-out.jsonl"
        assert command("export", run, "--merged", str(place), *where, folder=tmp_path).code == 0
        told = command("predict", run, str(tmp_path / f"{name}.jsonl"), "--out", str(out), *where, folder=tmp_path)
        assert told.code == 0, told.err
        tables.append([json.loads(line) for line in out.read_text().splitlines()])
        jobs.append({"folder": str(place), "texts": texts, "pipeline": True})
    numbers, sigmoids = load(jobs, tmp_path)
    values = np.asarray([row["value"] for row in tables[0]])
    assert np.allclose(np.asarray(numbers["outputs"])[:, 0], values, rtol=1e-6) and 500 < values.mean() < 860
    assert np.allclose([one["value"] for one in numbers["pipeline"]], values, rtol=1e-6)
    chances = 1 / (1 + np.exp(-np.asarray(sigmoids["outputs"])))
    assert np.allclose([[row[f"p_{name}"] for name in "abc"] for row in tables[1]], chances, atol=1e-6)
    assert np.allclose([[one[name] for name in "abc"] for one in sigmoids["pipeline"]], chances, atol=1e-6)
    chosen = [[n for n, chance in zip("abc", one, strict=True) if chance > 0.5] for one in chances]
    assert [row["labels"] for row in tables[1]] == chosen
    rated = f1_score(*(np.asarray([[n in k for n in "abc"] for k in one]) for one in (kinds, chosen)), average="micro")
    assert rated > 0


def test_a_folder_that_computes_something_else_is_never_there(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = bench("--method", "lora", "--task", "glue/cola").only()
    real = Loader.load
    monkeypatch.setattr(Loader, "load", lambda self, folder: lambda *inputs: real(self, folder)(*inputs) * 1.001 + 0.01)
    words = ["export", made.run_id, "--peft", str(tmp_path / "a"), "--runs", str(tmp_path / "runs")]
    assert main(words) == CHECK == CheckFailed.exit_code
    assert "does not compute what the run did" in capsys.readouterr().err
    assert not (tmp_path / "a").exists() and not list(tmp_path.glob(".a*"))


def test_a_card_is_escaped_and_names_no_place_of_the_machine(
    bench: Bench, command: Any, lively_bert: Path, tmp_path: Path
) -> None:
    names = ['<script>alert("`1`")</script>', "b|c: {x}\u202e"]
    lines = [json.dumps({"text": f"{'ab'[i % 2]} {i}", "label": names[i % 2]}) for i in range(24)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    words = ("--task", str(tmp_path / "mine.jsonl"), "--set", "method.target=query|<b>")
    done = bench("--method", "lora", *words, data=None, backbone=str(lively_bert))
    run, place = done.only(), tmp_path / "model"
    assert command("export", run.run_id, "--merged", str(place), "--runs", str(done.folder), folder=tmp_path).code == 0
    card = (place / "README.md").read_text()
    head, body = card.removeprefix("---\n").split("---\n", 1)
    front = yaml.safe_load(head)
    assert (front["library_name"], front["pipeline_tag"]) == ("transformers", "text-classification")
    assert front["metrics"] == [*run.metrics.all["validation"]]
    assert str(tmp_path) not in card and "\u202e" not in card
    assert "table:mine.jsonl --backbone lively-bert" in body
    assert "<script>" not in body.replace('"<script>alert(\\"`1`\\")</script>"', "", 1), "only in its block of JSON"
    bare = re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", body, flags=re.M | re.S))
    assert "target=query\\|<b>" in body and "<" not in bare, "it stands in a span of code, and ends no cell of a table"
    assert run.source.data_hash in body and run.backbone.weights_hash in body
    assert "licence" in body.lower() and "license" not in front
    found = json.loads((place / "config.json").read_text())["id2label"]
    assert set(found.values()) == set(names)


@pytest.mark.parametrize(
    ("method", "form", "what", "todo"),
    [
        ("adapter", "peft", "no equivalent in peft", "--adapter DIR"),
        ("adapter", "merged", "cannot be merged", "--adapter DIR"),
        ("lora", "adapter", "for bottleneck adapters", "--peft DIR or --merged DIR"),
        ("linear", "peft", "no equivalent in peft", "--merged DIR"),
    ],
)
def test_a_form_that_a_method_does_not_have_is_refused(
    bench: Bench, command: Any, tmp_path: Path, method: str, form: str, what: str, todo: str
) -> None:
    made = bench("--method", method, "--task", "glue/cola").only()
    where = ("--runs", str(tmp_path / "runs"))
    found = command("export", made.run_id, f"--{form}", str(tmp_path / "out"), *where, folder=tmp_path)
    assert found.code == USAGE
    assert what in found.err and todo in found.err and len(found.err.strip().splitlines()) == 3
    assert not (tmp_path / "out").exists()


def test_the_check_of_an_export_sees_rounding_only() -> None:
    assert exporting.EQUAL <= 1e-5
