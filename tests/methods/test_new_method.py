"""A new method is one file, in `methods/` with a registry entry or in a package with an entry point.

Both get listing, options, contract and a row of the leaderboard.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bench
import methods
from bench.cli import main
from bench.config.help import describe
from bench.config.sections import MethodConfig
from bench.core import registry

SOURCE = '''
"""NormTuning: trains the normalisation layers."""

from dataclasses import dataclass

from torch import nn

from bench.api.method import Batch, Method
from bench.config.options import option
from bench.config.sections import MethodConfig


class New(Method):
    """Trains scale and shift of every LayerNorm (arXiv 2312.11420). Parameters: Σ over LayerNorms 2·d, plus head."""

    @dataclass(frozen=True, kw_only=True)
    class Config(MethodConfig):
        """Trains scale and shift of every LayerNorm. Parameters: Σ over LayerNorms 2·d, plus head."""

        shift: bool = option(True, "Train the shift too.")

    config: Config

    def adapt(self, batch: Batch) -> None:
        """Freeze all but the norms."""
        self.backbone.requires_grad_(False)
        for module in self.backbone.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.requires_grad_(True)
                module.bias.requires_grad_(self.config.shift)
'''
SPEC: Any = importlib.util.spec_from_file_location("contract", Path(__file__).with_name("test_methods.py"))
contract: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(contract)
Trained = Callable[[str, dict[str, Any]], Any]
NORMS = 1 + 2 * contract.LAYERS
"""LayerNorms of the tiny BERT: one after the embeddings, two in every layer."""


@pytest.fixture(scope="module", autouse=True, params=["methods/", "third party"])
def _new_method(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Add the file with its entry."""
    folder = tmp_path_factory.mktemp("methods")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "methods/":
            (folder / "new.py").write_text(SOURCE)
            patch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
            patch.setitem(registry.BUILTIN["methods"], "new", registry.Entry("methods.new:New"))
        else:
            (folder / "norm_tuning.py").write_text(SOURCE)
            installed = folder / "norm_tuning-0.1.dist-info"
            installed.mkdir()
            (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: norm-tuning\nVersion: 0.1\n")
            (installed / "entry_points.txt").write_text("[lowrank_bench.methods]\nnew = norm_tuning:New\n")
            patch.syspath_prepend(folder)
        patch.setitem(contract.FORMULAS, "new", lambda config, backbone: NORMS * contract.WIDTH * (1 + config.shift))
        patch.setattr(contract, "WITHIN", {*contract.WITHIN, "new"})
        registry.entries.cache_clear()
        yield
    registry.entries.cache_clear()


def test_it_is_listed_and_its_options_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("new "))
    assert line.split(maxsplit=2) == ["new", "0.001", "NormTuning: trains the normalisation layers."]
    assert main(["show", "new"]) == 0
    shown = capsys.readouterr().out
    assert "Trains scale and shift of every LayerNorm" in shown and "Train the shift too." in shown
    assert [option.name for option in describe("methods", "new").options] == ["shift"]
    assert issubclass(registry.load_config("methods", "new"), MethodConfig)


def test_a_wrong_option_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--method", "new", "--task", "glue/rte", "--set", "method.shif=false"]) == 2
    assert "Did you mean 'method.shift'?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(lab: Any, _new_method: None) -> Trained:
    runs: dict[str, Any] = {}

    def run(name: str, options: dict[str, Any]) -> Any:
        key = json.dumps([name, options])
        if key not in runs:
            runs[key] = lab.run(lab.spec(name, options=options, runtime={"save": "all"}))
        return runs[key]

    return run


@pytest.mark.parametrize("options", [{}, {"shift": False}], ids=["all", "scale"])
@pytest.mark.usefixtures("toy_registered")
def test_it_keeps_the_contract(lab: Any, trained: Trained, tmp_path: Path, options: dict[str, Any]) -> None:
    contract.test_starts_as_the_plain_backbone_with_the_head(lab, "new", options, "toy/scores")
    contract.test_the_head_is_the_same_for_every_method(lab, "new", options)
    contract.test_only_what_is_declared_trains(lab, "new", options)
    contract.test_counts_are_the_docstrings_formula(lab, "new", options, True)
    contract.test_stored_bytes_are_those_of_what_trains(trained, "new", options)
    contract.test_options_survive_the_record(lab, "new", options)
    contract.test_twenty_steps_lower_the_loss(trained, lab, "new", options, "toy/classes")
    contract.test_export_is_what_trains_and_loads_back(trained, lab, tmp_path, "new", options)
    contract.test_micro_batches_change_nothing(lab, "new", options)


def test_it_gets_a_row_of_the_leaderboard(tiny_bert: Path, tmp_path: Path) -> None:
    small = {"max_steps": 2, "batch_size": 8, "train_samples": 16, "accelerator": "cpu"}
    runs = bench.run("new", "glue/rte", data="embedded", backbones=str(tiny_bert), out=tmp_path, **small)
    assert len(runs.done) == 1
    assert any(line.startswith("| new") or "| new " in line for line in runs.table().splitlines())
