"""`--backbone runs:RUN`: what a run trained is where another starts, and the record says so."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from records import list_files
from safetensors.torch import load_file

from bench.cli import main
from bench.config.sections import HeadConfig
from bench.core.errors import ENVIRONMENT, OK, USAGE, EnvironmentProblem
from bench.harness.planner import make_plan
from bench.harness.request import Request
from bench.records import record

Command = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """`bench run` on scikit-learn's digits in one folder; gives the records of its runs."""
    out = tmp_path_factory.mktemp("runs")

    def run(*words: str, code: int = OK, task: str = "digits") -> list[dict[str, Any]]:
        before = {r.run_id for r in record.load_all(out)[0]}
        fixed = ["--task", task, "--max-steps", "4", "--accelerator", "cpu", "--out", str(out)]
        assert main(["run", *fixed, *words]) == code
        return [r for r in record.load_all(out)[0] if r.run_id not in before]

    run.out = out  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="module")
def parent(command: Command) -> dict[str, Any]:
    [made] = command("--method", "full", "--backbone", "mlp", "--set", "runtime.save=all", "--seeds", "3")
    return made


def test_a_random_network_says_so_and_warns_where_it_is_frozen(command: Command, capsys: Any) -> None:
    small = ("--backbone", "mlp", "--set", "backbone.width=4", "--set", "backbone.depth=2")
    fixed = ["--task", "digits", "--out", str(command.out)]  # type: ignore[attr-defined]
    assert main(["run", "--method", "full,linear", *small, *fixed, "--dry-run"]) == OK
    assert " · mlp (random) · " in capsys.readouterr().out
    full, linear = sorted(command("--method", "full,linear", *small), key=lambda r: r.spec.method)
    assert full.backbone.random and not full.warnings
    total = linear.backbone.parameters
    assert linear.warnings == (f"mlp is random: {total} of its {total} parameters stay as they were drawn",)
    capsys.readouterr()
    assert main(["show", linear.run_id, "--runs", str(command.out)]) == OK  # type: ignore[attr-defined]
    shown = capsys.readouterr().out
    assert f"mlp (random at the start, {total} parameters)" in shown and "warning: mlp is random" in shown


def test_weights_and_chain_are_those_of_the_run(command: Command, parent: dict[str, Any]) -> None:
    [child] = command("--method", "linear", "--backbone", f"runs:{parent.run_id[:10]}")
    folder = command.out / parent.run_id  # type: ignore[attr-defined]
    trained = load_file(folder / "backbone" / "model.safetensors")
    kept = {n.removeprefix("backbone."): t for n, t in load_file(folder / "adapter.safetensors").items()}
    assert all(torch.equal(t, kept[n]) for n, t in trained.items())
    assert child.spec.backbone == child.backbone.name == f"runs:{parent.run_id}"
    assert child.backbone.parameters == sum(t.numel() for t in trained.values())
    assert child.backbone.parent.to_json() == {
        "run_id": parent.run_id,
        "group_id": parent.group_id,
        "method": "full",
        "task": "digits",
        "backbone": "mlp",
        "parent": None,
    }
    plan = make_plan(_request(command, f"runs:{parent.run_id}"))
    [run] = plan.runs
    network = run.backbone.load(task=run.task.spec, head=HeadConfig(), seed=99)  # nothing comes from the seed
    assert all(torch.equal(t, trained[n]) for n, t in network.state_dict().items())


def test_a_run_of_a_run_names_both(command: Command, parent: dict[str, Any]) -> None:
    backbone = f"runs:{parent.run_id}"
    [second] = command("--method", "full", "--backbone", backbone, "--set", "runtime.save=all")
    [third] = command("--method", "linear", "--backbone", f"runs:{second.run_id}")
    assert third.backbone.parent.run_id == second.run_id
    assert third.backbone.parent.parent.run_id == parent.run_id


def test_the_id_follows_the_weights(command: Command, parent: dict[str, Any]) -> None:
    request = _request(command, f"runs:{parent.run_id}")
    [run] = make_plan(request).runs
    file = command.out / parent.run_id / "backbone" / "model.safetensors"  # type: ignore[attr-defined]
    assert run.backbone.pretrained
    assert len(run.backbone.weights_hash) == 64
    assert run.backbone.weights_hash != parent.backbone.weights_hash
    assert file.is_file()


@pytest.mark.parametrize(("prefix", "word"), [("0000", "no run"), ("../x", "beginning of a run id"), ("", "beginning")])
def test_an_unknown_run_is_a_usage_error(
    command: Command, capsys: pytest.CaptureFixture[str], prefix: str, word: str
) -> None:
    command("--method", "linear", "--backbone", f"runs:{prefix}", code=USAGE)
    assert word in capsys.readouterr().err


def test_a_run_that_kept_no_network_is_refused(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    [made] = command("--method", "linear", "--backbone", "mlp", "--seeds", "7")
    command("--method", "linear", "--backbone", f"runs:{made.run_id}", code=ENVIRONMENT)
    said = capsys.readouterr().err
    assert made.run_id in said and "runtime.save=all" in said


def test_inputs_of_another_shape_are_refused(command: Command, parent: dict[str, Any]) -> None:
    backbone = f"runs:{parent.run_id}"
    [made] = command("--method", "linear", "--backbone", backbone, "--set", "task.size=12", code=1)
    assert made.state == "failed"
    assert "1×8×8" in made.error.known and "1×12×12" in made.error.known


def test_what_is_kept_says_how_to_build_it_and_runs_nothing(command: Command, parent: dict[str, Any]) -> None:
    folder = command.out / parent.run_id / "backbone"  # type: ignore[attr-defined]
    made = json.loads((folder / "network.json").read_text())
    assert made["name"] == "mlp" and made["shape"] == [1, 8, 8]
    assert sorted(p.name for p in folder.iterdir()) == ["model.safetensors", "network.json"]


GOOD = {"name": "mlp", "modalities": ["image"], "shape": [1, 8, 8], "options": {}}
BROKEN = {
    "network.json: not JSON": (b"{", "truncated"),
    "network.json: no name": (b"{}", "missing required field `name`"),
    "network.json: not UTF-8": (b'{"name": "\xff"}', "UTF-8"),
    "network.json: unknown name": ({"name": "nobody"}, "'nobody' is not a network that is built"),
    "network.json: a run": ({"name": "runs:0123"}, "'runs:0123' is not a network that is built"),
    "network.json: unknown option": ({"options": {"breadth": 3}}, "'mlp' has no option breadth"),
    "network.json: type of an option": ({"options": {"width": "wide"}}, "Expected `int`"),
    "network.json: range of an option": ({"options": {"width": 0}}, "backbone.width"),
    "network.json: shape": ({"shape": ["a"]}, "Expected `int`"),
    "network.json: network": ({"options": {"width": 3}}, "size mismatch"),
    "model.safetensors: gone": (None, "not there, or not a regular file"),
    "model.safetensors: a pipe": ("pipe", "is no regular file"),
    "model.safetensors: cut": (b"\x10", "is not a safetensors file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_network_of_a_run_is_an_error_in_three_parts(
    command: Command, parent: dict[str, Any], tmp_path: Path, case: str
) -> None:
    shutil.copytree(command.out / parent.run_id, tmp_path / parent.run_id)  # type: ignore[attr-defined]
    file = tmp_path / parent.run_id / "backbone" / case.partition(":")[0]
    content, said = BROKEN[case]
    if content is None or content == "pipe":
        file.unlink()
        if content == "pipe":
            os.mkfifo(file)
    else:
        file.write_bytes(content if isinstance(content, bytes) else json.dumps({**GOOD, **content}).encode())
    if content != "pipe":
        list_files(tmp_path / parent.run_id)  # as of a stranger's run; else it is refused since it was changed
    with pytest.raises(EnvironmentProblem) as caught:
        [run] = make_plan(replace(_request(command, f"runs:{parent.run_id}"), out=tmp_path)).runs
        run.backbone.load(task=run.task.spec, head=HeadConfig(), seed=0)
    assert said in str(caught.value) and str(file.parent) in str(caught.value) and caught.value.todo


def _request(command: Command, backbone: str) -> Request:
    out: Path = command.out  # type: ignore[attr-defined]
    return Request(methods=("linear",), tasks=("digits",), backbones=(backbone,), out=out, max_steps=4)


def test_a_rate_is_selected_by_the_metric_of_the_method(command: Command, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n\n".join(f"the cat number {i} sat on the mat" for i in range(60)))
    size = [f"backbone.{key}={n}" for key, n in {"layers": 1, "hidden": 16, "heads": 1}.items()]
    settings = [word for given in (*size, "method.evaluations=1") for word in ("--set", given)]
    words = ["--method", "mlm", "--backbone", "bert", *settings, "--select", "lr", "--lr", "1e-6,3e-2", "--widen", "0"]
    [made] = command(*words, task=f"corpus:{tmp_path / 'texts.txt'}")
    selection = made.selection
    idle, learned = (trial.value for trial in selection.trials)
    assert learned < idle - 0.1, "of a loss less is better"
    assert (selection.metric, selection.chosen, made.lr) == ("mlm_loss", 3e-2, 3e-2)
