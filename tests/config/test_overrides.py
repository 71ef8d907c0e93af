"""`--set`: read once, given to every Config that knows the key; everything else is an error that helps."""

from __future__ import annotations

from typing import Any

import pytest

from bench.config.overrides import NAMESPACES, Configs, Overrides, build_bare, build_configs
from bench.config.sections import SECTIONS, Sections
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError
from methods.deeplora.config import DeepLoRAConfig


def configs(settings: list[str], *methods: str, **more: Any) -> Configs:
    [one] = build_configs(Overrides.parse(settings), methods=methods, **more)
    return one


def test_without_settings_every_option_has_its_default() -> None:
    found = configs([], "deeplora", tasks=["glue"], backbones=["minilm"])
    assert found.sections == Sections()
    assert found.methods == {"deeplora": DeepLoRAConfig()}
    assert [*found.tasks, *found.backbones] == ["glue", "minilm"]
    assert ("method", "task", "backbone", *SECTIONS) == NAMESPACES


def test_every_section_is_a_field_of_sections() -> None:
    assert {name: type(getattr(Sections(), name)) for name in SECTIONS} == SECTIONS
    assert {name: kind.namespace for name, kind in SECTIONS.items()} == {name: name for name in SECTIONS}


def test_values_are_typed_and_reach_their_place() -> None:
    settings = [
        "method.rank=none",
        "head.trainable=no",
        "optim.eps=1",
        "method.target=(a,b=c)",
        "optim.schedule=cosine",
    ]
    found = configs(settings, "deeplora")
    method: Any = found.methods["deeplora"]
    assert method.rank is None
    assert found.sections.head.trainable is False
    assert (found.sections.optim.eps, type(found.sections.optim.eps)) == (1.0, float)
    assert method.target == "(a,b=c)", "commas in brackets and = belong to the value"
    assert found.sections.optim.schedule == "cosine"


def test_python_values_do_the_same_as_texts() -> None:
    texts = Overrides.parse(["method.rank=4", "head.trainable=false", "method.target=qv"])
    values = Overrides.of({"method.rank": 4, "head.trainable": False, "method.target": "qv"})
    assert build_configs(texts, methods=["lora"]) == build_configs(values, methods=["lora"])
    with pytest.raises(UsageError, match=r"method\.rank=0\.5: expected a whole number"):
        build_configs(Overrides.of({"method.rank": 0.5}), methods=["lora"])
    with pytest.raises(UsageError, match=r"namespace\.key=value"):
        Overrides.of({"rank": 4})


@pytest.mark.parametrize(
    ("settings", "what", "known", "todo"),
    [
        (["method.rnk=8"], "'method.rnk'", "method.rank", "Did you mean 'method.rank'?"),
        (["method.eps=1"], "'method.eps'", "method.rank", "Did you mean 'optim.eps'?"),
        (["head.trainible=no"], "'head.trainible'", "head.pooling", "Did you mean 'head.trainable'?"),
        (["meth.rank=8"], "namespace 'meth'", "method, task", "Did you mean 'method'?"),
        (["zzz.x=8"], "namespace 'zzz'", "method, task", "bench show"),
        (["rank=8"], "namespace.key=value", "method, task", "--set method.rank=8"),
        (["method.rank"], "namespace.key=value", "method", "--set"),
        (["method.=8"], "namespace.key=value", "method", "--set"),
        (["method.rank=x"], "expected a whole number", "method.rank: int, default 8.", "of that type"),
        (["method.rank="], "expected a whole number", "", ""),
        (["method.rank=0"], "method.rank=0", "at least 1", "in that range"),
        (["optim.eps=inf"], "expected a finite number", "optim.eps: float, default 1e-08.", ""),
        (["method.rank=8", "method.rank=8"], "given twice", "'8'", "Keep one"),
    ],
)
def test_errors_name_what_is_known_and_what_to_do(settings: list[str], what: str, known: str, todo: str) -> None:
    with pytest.raises(UsageError) as caught:
        configs(settings, "lora")
    assert what in caught.value.what
    assert known in caught.value.known
    assert todo in caught.value.todo


def test_a_key_goes_to_the_methods_that_know_it() -> None:
    found = configs(["method.rank=4", "method.depth=2"], "full", "lora", "deeplora").methods
    assert found["full"].to_json() == {}
    assert [found[name].to_json()["rank"] for name in ("lora", "deeplora")] == [4, 4]
    assert "depth" not in found["lora"].to_json()
    assert found["deeplora"].to_json()["depth"] == 2


def test_a_key_that_no_method_knows_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"method\.gama"):
        configs(["method.gama=1"], "full", "deeplora")
    with pytest.raises(UsageError, match=r"method\.rank") as caught:
        configs(["method.rank=1"], "full")
    assert "no options" in caught.value.known
    with pytest.raises(UsageError, match=r"method\.rank") as caught:
        configs(["method.rank=1"], "full", "linear")
    assert caught.value.known == "options of method full or linear: method.standardise"


def test_a_method_that_cannot_be_imported_is_an_environment_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILTIN["methods"], "theirs", registry.Entry("no_such_package.methods:Theirs"))
    monkeypatch.setitem(
        registry.BUILTIN["methods"], "plain", registry.Entry("methods.lora.method:LoRA", "argparse:Action")
    )
    registry.entries.cache_clear()
    with pytest.raises(EnvironmentProblem, match="method 'theirs' cannot be imported") as caught:
        configs([], "theirs")
    assert "ModuleNotFoundError" in caught.value.known
    with pytest.raises(EnvironmentProblem, match="are no MethodConfig"):
        configs([], "plain")
    registry.entries.cache_clear()


def test_bare_keys_are_those_of_an_experiment() -> None:
    config = registry.load_config("experiments", "parsimony")
    assert build_bare(["width=40", "lr=1"], config, "parsimony") == {"width": 40, "lr": 1.0}
    for settings, said in (
        (["wdth=4"], "unknown option 'wdth'"),
        (["lr=1", "lr=2"], "given twice"),
        (["lr"], "key=value"),
    ):
        with pytest.raises(UsageError, match=said):
            build_bare(settings, config, "parsimony")


def variants(settings: list[str] | dict[str, Any], *methods: str, **more: Any) -> list[Configs]:
    overrides = Overrides.parse(settings) if isinstance(settings, list) else Overrides.of(settings)
    return build_configs(overrides, methods=methods, **more)


def test_lists_make_their_product() -> None:
    found = variants(["method.rank=4,8", "optim.clip=0, 1", "head.trainable=no"], "lora")
    assert [(one.methods["lora"].to_json()["rank"], one.sections.optim.clip) for one in found] == [
        (rank, clip) for rank in (4, 8) for clip in (0.0, 1.0)
    ]
    assert {one.sections.head.trainable for one in found} == {False}
    listed = variants({"method.rank": [4, 8], "optim.clip": (0, 1.0), "head.trainable": False}, "lora")
    assert [(one.methods, one.sections) for one in listed] == [(one.methods, one.sections) for one in found]


def test_a_variant_has_the_values_it_was_built_from() -> None:
    [first, second] = variants({"method.target": ["a,b", "qv"], "method.rank": range(2, 3)}, "lora")
    assert first.overrides.reaching([("method", first.methods["lora"])]) == {
        ("method", "target"): "a,b",
        ("method", "rank"): "2",
    }
    assert second.methods["lora"].to_json()["target"] == "qv"
    again = build_configs(second.overrides, methods=["lora"])
    assert again == [second]


def test_commas_belong_to_the_value_of_an_option_that_says_so() -> None:
    [one] = variants(["spectra.of=updates,weights", "spectra.layers=*a,*b"], "lora")
    assert (one.sections.spectra.of, one.sections.spectra.layers) == ("updates,weights", "*a,*b")
    [one] = variants(["task.separator=,", "task.kind=multilabel"], "lora", tasks=["table"])
    assert one.tasks["table"].to_json()["separator"] == ","
    [one] = variants(["task.spectrum=4,3,2"], "full", tasks=["synthetic"])
    assert one.tasks["synthetic"].to_json()["spectrum"] == "4,3,2"
    two = variants({"spectra.layers": ["*a,*b", "*c"]}, "lora")
    assert [one.sections.spectra.layers for one in two] == ["*a,*b", "*c"], "in Python a list is one everywhere"


@pytest.mark.parametrize(
    ("settings", "what", "known"),
    [
        (["method.rank=4,x"], "--set method.rank=x: expected a whole number", "method.rank: int, default 8."),
        (["method.rank=4,0"], "method.rank=0", "at least 1"),
        (["method.rank=4,8,4"], "--set method.rank: 4 is given twice", "given: 4, 8, 4"),
        (["method.alpha=8,8.0"], "--set method.alpha: 8.0 is given twice", "8, 8.0"),
        (["method.dora=yes,true"], "--set method.dora: true is given twice", "yes, true"),
        (["method.rank=4,"], "--set method.rank=4,: an empty element", "a,b,c"),
        (["runtime.workers=0,2"], "--set runtime.workers takes one value", "0, 2"),
        (["data.on_bad=skip,error"], "--set data.on_bad takes one value", "skip, error"),
        ({"method.rank": []}, "--set method.rank has no value", "empty"),
        ({"method.rank": [1, "x"]}, "--set method.rank=x: expected a whole number", "method.rank"),
    ],
)
def test_a_wrong_list_names_value_and_option(settings: Any, what: str, known: str) -> None:
    with pytest.raises(UsageError) as caught:
        variants(settings, "lora")
    assert caught.value.what.startswith(what)
    assert known in caught.value.known
    assert caught.value.todo
