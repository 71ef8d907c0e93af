"""Each check fails on a method that breaks the promise, with the reason, and the others of that method hold."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import SkipTest

import pytest
import torch
from torch import Tensor, nn

from bench.api import Batch, Delta, FactoredLinear, LowRank, Method, UpdateConfig, lora_adapter, matricize, option
from bench.api.lowrank.factored import Base
from bench.checks import Check, checks_of, contract, parametrize_with_checks, run_checks
from bench.checks.run import NAMES
from bench.cli import main
from bench.core import registry
from bench.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SoundConfig(UpdateConfig):
    """Adds s·B·A. Parameters: Σ r·(m + n), plus head."""

    rank: int = option(2, "r.", at_least=1, scales_parameters=True)


class Sound(LowRank):
    """A LoRA that keeps every promise; those below break one each."""

    Config = SoundConfig

    def layer(self, name: str, base: Base, rank: int, generator: torch.Generator) -> FactoredLinear:
        m, n = matricize(base.weight).shape
        a = torch.randn(rank, n, generator=generator) / math.sqrt(n)
        return FactoredLinear(base, [a, torch.zeros(m, rank)], scale=8.0)

    @classmethod
    def peft(cls, config: Any, tensors: dict[str, Tensor]) -> Any:
        return lora_adapter(tensors, lambda rank: 8.0 * rank)


class LosesOptions(Sound):
    """JSON, and so a record, has no tuples."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SoundConfig):
        """Parameters: Σ r·(m + n), plus head."""

        sizes: tuple[int, ...] = option((1, 2), "No value that `--set` can give.")


class Miscounts(Sound):
    def layer_parameters(self, m: int, n: int, rank: int) -> int:
        return rank * m


class StartsElsewhere(Sound):
    def layer(self, name: str, base: Base, rank: int, generator: torch.Generator) -> FactoredLinear:
        layer = super().layer(name, base, rank, generator)
        layer.factors[1].data.fill_(0.1)
        return layer


class RedrawsTheHead(Sound):
    def adapt(self, batch: Batch) -> None:
        super().adapt(batch)
        self.head.weight.data.mul_(2)


class TrainsInVain(Sound):
    def adapt(self, batch: Batch) -> None:
        super().adapt(batch)
        self.unused = nn.Parameter(torch.ones(3))

    def expected_parameters(self) -> int | None:
        return (super().expected_parameters() or 0) + 3


class MovesFrozen(Sound):
    def on_train_batch_end(self, *args: Any) -> None:
        next(layer for _, layer in self.layers()).base.weight.data.add_(1e-3)


class LeavesOneOut(Sound):
    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": super().param_groups()[0]["params"][1:]}]


class Climbs(Sound):
    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        return 2 * loss.detach() - loss if self.training else loss


class DrawsFromElsewhere(Sound):
    def layer(self, name: str, base: Base, rank: int, generator: torch.Generator) -> FactoredLinear:
        return super().layer(name, base, rank, torch.Generator().manual_seed(next(COUNT)))


COUNT: Iterator[int] = iter(range(10**6))


class HalvesDelta(Sound):
    def deltas(self) -> Iterator[tuple[str, Delta]]:
        return ((name, replace(d, factors=(d.factors[0] / 2, *d.factors[1:]))) for name, d in super().deltas())

    def updates(self) -> Iterator[Any]:
        return iter(())


class NamesNoLayer(HalvesDelta):
    def deltas(self) -> Iterator[tuple[str, Delta]]:
        return ((f"my.{name}", delta) for name, delta in LowRank.deltas(self))


class UnderstatesRank(Sound):
    def deltas(self) -> Iterator[tuple[str, Delta]]:
        return ((name, replace(delta, nominal=1)) for name, delta in super().deltas())


class KeepsFrozenToItself(Sound):
    """LoRA-FA without A in the export: a run of another seed has another A."""

    def layer(self, name: str, base: Base, rank: int, generator: torch.Generator) -> FactoredLinear:
        layer = super().layer(name, base, rank, generator)
        layer.factors[0].requires_grad_(False)
        return layer

    def layer_parameters(self, m: int, n: int, rank: int) -> int:
        return rank * m

    def export(self) -> dict[str, Tensor]:
        return Method.export(self)


class ExportsUndeclared(Sound):
    def export(self) -> dict[str, Tensor]:
        return {**super().export(), "head.extra": torch.zeros(1)}


class ForgetsState(Sound):
    """Grows a factor on the loss with every step, in a number that no checkpoint holds."""

    seen = 0

    def loss(self, batch: Batch) -> Tensor:
        self.seen += self.training
        return super().loss(batch) * (1 + self.seen)


class ReadsItsPart(Sound):
    """The loss of a part depends on how large it is."""

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * (1 + 0.1 * len(batch["index"]))


class WritesAnotherAdapter(Sound):
    @classmethod
    def peft(cls, config: Any, tensors: dict[str, Tensor]) -> Any:
        return lora_adapter(tensors, lambda rank: rank)


BROKEN: list[tuple[type[Sound], str, str]] = [
    (LosesOptions, "options_survive_the_record", "a record gives back"),
    (Miscounts, "parameters_follow_the_formula", "expected_parameters gives"),
    (StartsElsewhere, "starts_at_the_backbone", "before the first step"),
    (RedrawsTheHead, "the_head_follows_from_the_seed", "N(0, .02²)"),
    (TrainsInVain, "each_trained_tensor_learns", "no gradient in 16 steps: unused"),
    (MovesFrozen, "no_frozen_tensor_moves", "base.weight"),
    (LeavesOneOut, "each_trained_tensor_has_one_group", "in no group of param_groups"),
    (Climbs, "a_short_run_lowers_the_loss", "the loss went from"),
    (DrawsFromElsewhere, "a_seed_repeats_a_run", "draw from self.seed alone"),
    (HalvesDelta, "delta_is_the_change_of_the_function", "another function"),
    (NamesNoLayer, "delta_is_the_change_of_the_function", "no such layer: my.layers"),
    (UnderstatesRank, "nominal_rank_bounds_the_rank", "rank 2, nominal 1"),
    (KeepsFrozenToItself, "export_loads_back", "something drawn is not exported"),
    (ExportsUndeclared, "export_loads_back", "declared in frozen_exports: head.extra"),
    (ForgetsState, "an_interrupted_run_resumes", "keep its state in a buffer"),
    (ReadsItsPart, "micro_batches_change_nothing", "losses differ"),
    (WritesAnotherAdapter, "peft_computes_the_same", "its outputs differ"),
]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Method]], str]:
    """Make a method of this file a registered one; returns its name."""

    def add(kind: type[Method]) -> str:
        monkeypatch.setitem(
            registry.entries("methods"), kind.__name__, registry.Entry(f"{kind.__module__}:{kind.__name__}")
        )
        return kind.__name__

    return add


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_method_passes(register: Callable[[type[Method]], str], name: str) -> None:
    Check(name=name, method=register(Sound), on="mlp")()


@pytest.mark.parametrize(("kind", "name", "reason"), BROKEN, ids=[kind.__name__ for kind, *_ in BROKEN])
def test_a_broken_promise_is_found(
    register: Callable[[type[Method]], str], kind: type[Sound], name: str, reason: str
) -> None:
    result = Check(name=name, method=register(kind), on="mlp").result()
    assert result.state == "failed", result
    assert reason in result.reason


def test_every_check_is_seen_to_fail_and_is_listed() -> None:
    public = {name for name, f in inspect.getmembers(contract, inspect.isfunction) if f.__module__ == contract.__name__}
    assert {name for name in public if name[0] != "_"} == {*NAMES}
    assert {name for _, name, _ in BROKEN} == {*NAMES} - {"can_be_built"}


class Raises(Sound):
    def adapt(self, batch: Batch) -> None:
        super().adapt(batch)
        self.register_buffer("broken", None)

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        raise KeyError("no such thing")


def test_an_error_of_a_method_is_a_check_that_does_not_hold(register: Callable[[type[Method]], str]) -> None:
    result = Check(name="nominal_rank_bounds_the_rank", method=register(Raises), on="mlp").result()
    assert (result.state, result.reason) == ("failed", "KeyError: 'no such thing'")


def test_what_does_not_apply_is_skipped_with_the_reason() -> None:
    assert "declares no equivalent" in Check(name="peft_computes_the_same", method="bitfit", on="mlp").result().reason
    results = [*run_checks("adapter", backbones=["mlp"])]
    assert [(one.check, one.state) for one in results] == [("can_be_built", "skipped")], "one line for a network"
    assert "stack of transformer or residual blocks" in results[0].reason
    with pytest.raises(SkipTest):
        Check(name="export_loads_back", method="adapter", on="mlp", small=False)()


def test_networks_are_those_that_the_config_names() -> None:
    assert {check.on for check in checks_of("lora")} == {"bert", "vit", "mlp"}
    assert {check.on for check in checks_of("mae")} == {"vit"}
    assert {check.on for check in checks_of("lora", backbones=["resnet18"])} == {"resnet18"}


@pytest.mark.parametrize("given", [{"method.rnk": 3}, {"method.rank": "3,4"}, {"method.rank": 0}])
def test_wrong_options_are_refused_before_anything_is_built(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        checks_of("lora", set=given)


def test_the_command(register: Callable[[type[Method]], str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", register(Miscounts), "--backbone", "mlp", "--set", "backbone.width=24", "--json"]) == 4
    shown = json.loads(capsys.readouterr().out)
    assert not shown["ok"]
    failed = [one for one in shown["results"] if one["state"] == "failed"]
    assert [(one["check"], one["on"]) for one in failed] == [("parameters_follow_the_formula", "mlp")]
    assert main(["check", "adapter", "--backbone", "mlp"]) == 4, "nothing was checked"
    assert "adapter: 1 do not apply" in capsys.readouterr().out
    assert main(["check", "lra"]) == 2
    assert "Did you mean 'lora'?" in capsys.readouterr().err


def test_pytest_runs_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from bench.checks import parametrize_with_checks

        @parametrize_with_checks("bitfit", backbones=["mlp"], set={"backbone.width": 24, "backbone.depth": 3})
        def test_contract(check):
            check()
        """
    )
    result = pytester.runpytest_inprocess("-p", "bench.checks.plugin", "-k", "options or groups or nominal", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*it yields no ΔW*"])


def test_pytest_needs_no_file(pytester: pytest.Pytester, register: Callable[[type[Method]], str]) -> None:
    name = register(Miscounts)
    run = pytester.runpytest_inprocess("-p", "bench.checks.plugin", "--bench-check", name, "-k", "formula and mlp")
    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["expected_parameters gives *; beside the head train *"])


def test_an_unknown_method_is_a_usage_error_of_pytest(pytester: pytest.Pytester) -> None:
    run = pytester.runpytest_inprocess("-p", "bench.checks.plugin", "--bench-check", "lra")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["*Did you mean 'lora'?*"])


def test_the_decorator_names_each_check() -> None:
    mark = parametrize_with_checks("mae").mark
    assert mark.kwargs["ids"] == [f"{name}-vit" for name in NAMES]
