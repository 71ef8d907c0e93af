"""An interrupted run goes on in another process as if nothing had happened, bit for bit: every method, with dropout.

The interrupted run scores dev after every epoch, the other one never: evaluation leaves no trace in training either.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench.core import registry
from bench.training.checkpoint import path
from bench.training.trainer import FILE

METHODS = sorted(name for name in registry.entries("methods") if "text" in registry.load_config("methods", name).needs)
METHODS += ["peft:vera", "peft:oft"]
STEPS, BEFORE = 8, 4
"""Three steps make an epoch: the run is interrupted in its second one, after step 4 and within step 5."""
DROPOUTS = {"dropout", "vera_dropout", "module_dropout"}
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from bench.backbones.text_encoders import from_folder
from bench.records.spec import RunSpec
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from lab import TOY, Lab
from bench.core import registry
registry.entries("tasks")["toy"] = TOY
lab = Lab(backbone=from_folder("lively-bert", Path(sys.argv[2])), folder=lambda: None)
for directory, spec in json.load(sys.stdin).items():
    try:
        result = lab.run(RunSpec.from_json(spec), Path(directory)).result.to_json()
    except Exception as error:
        result = {"error": repr(error)}
    (Path(directory) / "resumed.json").write_text(json.dumps(result))
"""


class Stop(Exception):
    pass


def stop(step: int) -> None:
    if step > BEFORE:
        raise Stop


def spec_of(lab: Any, method: str, **runtime: Any) -> Any:
    names = {field.name for field in fields(registry.load_config("methods", method))}
    return lab.spec(
        method,
        max_steps=STEPS,
        options=dict.fromkeys(DROPOUTS & names, 0.1),
        head={"pooling": "auto", "dropout": 0.1},
        backbone={"dropout": 0.1},
        runtime={"save": "all", **runtime},
    )


@pytest.fixture(scope="module")
def resumed(lab: Any, lively_bert: Path) -> dict[str, Path]:
    """Folder of each method's run, interrupted here and ended in one other process."""
    folders: dict[str, Path] = {}
    jobs: dict[str, Any] = {}
    for method in METHODS:
        folder, spec = lab.folder(), spec_of(lab, method, checkpoint_s=0).with_(evaluate="epoch")
        with pytest.raises(Stop):
            lab.run(spec, folder, stop)
        folders[method], jobs[str(folder)] = folder, spec.to_json()
    words = [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1] / "support"), str(lively_bert)]
    subprocess.run(words, input=json.dumps(jobs), text=True, check=True, capture_output=True)
    return folders


@pytest.mark.parametrize("method", METHODS)
def test_resumed_equals_uninterrupted(lab: Any, resumed: dict[str, Path], method: str) -> None:
    whole = lab.run(spec_of(lab, method, checkpoint_s=None))
    assert not path(whole.directory, world=1, parts=1).exists()
    there, want = json.loads((resumed[method] / "resumed.json").read_text()), whole.result.to_json()
    assert "error" not in there, there
    assert there["cost"].pop("resumed_at") == [BEFORE]
    assert want["cost"].pop("resumed_at") == []
    assert there["cost"]["steps"] == want["cost"]["steps"] == STEPS
    assert [row["step"] for row in there.pop("evaluations")] == [3, 6, STEPS]
    want.pop("evaluations", None)
    del there["cost"], want["cost"]
    assert there == want
    found, expected = (load_file(folder / FILE) for folder in (resumed[method], whole.directory))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_is_as_small_as_what_trains(lab: Any, resumed: dict[str, Path], method: str) -> None:
    """What trains, and what a method keeps about it."""
    file = path(resumed[method], world=1, parts=1)
    kept = torch.load(file, weights_only=True)["state_dict"]
    exported = load_file(resumed[method] / FILE)
    buffers = {name for name, _ in lab.build(spec_of(lab, method))[1].named_buffers()}
    assert {name for name in kept if not name.startswith("_")} - buffers <= set(exported)


def test_dropout_was_at_work(lab: Any) -> None:
    """Else the tests above would hold without the random generators."""
    run: Callable[..., Any] = lambda rate: lab.run(lab.spec("full", max_steps=2, backbone={"dropout": rate})).losses  # noqa: E731
    assert run(0.1) != run(0.0)
