"""A record that contradicts itself, or whose id does not follow from its content, is reported like a broken one."""

from __future__ import annotations

import json

import msgspec
import pytest

from bench.core.errors import EnvironmentProblem
from bench.records import record
from bench.records.schema import Record
from bench.records.spec import RunSpec


def put(out, value):
    """A record's file with this content, unchecked."""
    path = out / value["run_id"] / record.FILE
    path.parent.mkdir()
    path.write_text(json.dumps(value))
    return path


def reasons(out):
    """Why the records of a folder cannot be read."""
    records, problems = record.load_all(out)
    assert not records and all(str(out) in problem.what and problem.todo for problem in problems)
    return [problem.known for problem in problems]


SELECTION = {"metric": "accuracy", "split": "holdout", "task": "glue/cola", "chosen": 1e-3, "trials": []}


@pytest.mark.parametrize(
    ("space", "options", "reason"),
    [
        ({"method.rank": [4, 8]}, {"method.rank": 8}, ""),
        ({"method.rank": [4, 8]}, {"method.rank": 4}, "spec.options.method.rank: 8, but selection.options has 4"),
        ({"method.rank": [4, 16]}, {"method.rank": 8}, "selection.options.method.rank: 8, which is no candidate"),
        ({"method.rank": [4, 8]}, {"method.rank": 8.0}, "selection.options.method.rank: 8.0, which is no candidate"),
        ({"method.rank": [4, 8]}, {}, "selection.options: method.rank is missing"),
        ({}, {"method.rank": 8}, "selection.options.method.rank: spec.space has no such option"),
        ({"method.rank": [4, 8]}, None, "selection: null"),
    ],
)
def test_what_was_selected_is_a_candidate_and_the_option_of_the_run(tmp_path, record_json, space, options, reason):
    selection = None if options is None else {**SELECTION, "options": options}
    put(tmp_path, record_json(spec={"space": space}, selection=selection))
    if reason:
        [found] = reasons(tmp_path)
        assert found.startswith(reason)
    else:
        assert len(record.load_all(tmp_path)[0]) == 1


def test_the_candidates_are_hashed_and_what_was_chosen_is_not(tmp_path, record_json):
    value = record_json(spec={"space": {"method.rank": [4, 8]}}, selection={**SELECTION, "options": {"method.rank": 8}})
    value["spec"]["options"]["method"]["rank"] = value["selection"]["options"]["method.rank"] = 4
    put(tmp_path, value)
    assert [one.run_id for one in record.load_all(tmp_path)[0]] == [value["run_id"]]
    value["spec"]["space"]["method.rank"] = [4, 16]
    (tmp_path / value["run_id"] / record.FILE).write_text(json.dumps(value))
    assert reasons(tmp_path)[0].startswith("run_id: it does not follow")


@pytest.mark.parametrize(
    ("place", "change", "reason"),
    [
        ("metrics.all.dev", {"accuracy": 7.5}, "metrics.all.dev.accuracy: 7.5, outside of 0 to 1"),
        ("metrics.all.dev", {"f1": -0.1}, "metrics.all.dev.f1"),
        ("metrics.all.dev", {"balanced_accuracy": -0.1}, "metrics.all.dev.balanced_accuracy"),
        ("metrics.all.dev", {"micro_f1": 1.1}, "metrics.all.dev.micro_f1"),
        ("metrics.all.dev", {"map": 1.1}, "metrics.all.dev.map"),
        ("metrics.all.dev", {"spearman": -1.1}, "metrics.all.dev.spearman"),
        ("metrics.all.dev", {"mse": -1.0}, "metrics.all.dev.mse"),
        ("metrics.primary", {"value": 0.42}, "metrics.primary.value: 0.42, but metrics.all.dev has 0.41"),
        ("metrics.primary", {"name": "f1"}, "metrics.primary.name: metrics.all.dev has no f1"),
        ("metrics.primary", {"name": "matthews+accuracy"}, "metrics.primary.value: 0.41, but metrics.all.dev has 0.55"),
        ("metrics.primary", {"split": "test"}, "metrics.primary.name: metrics.all.test has no matthews"),
        ("metrics.primary", {"n": 10}, "metrics.primary.n: 10, but source.evaluation_examples has 200"),
        ("params", {"total": 67_999}, "params.trainable: 68000, more than the 67999 of params.total"),
        ("params", {"head": 68_001}, "params.head: 68001, more than"),
        ("ranks.0", {"effective": 8.1}, "ranks[0].effective: 8.1, more than the nominal rank 8"),
        ("ranks.1", {"stable": 9.0}, "ranks[1].stable: 9, more than"),
        ("ranks.1", {"energy90": 9}, "ranks[1].energy90: 9, more than"),
        ("ranks.0", {"nominal": 385}, "ranks[0].nominal: 385, more than a matrix of 384×384 has"),
        ("task", {"name": "glue/rte"}, "task.name: glue/rte, but spec.task is glue/cola"),
        ("", {"lr": 0.002}, "lr: 0.002, but spec.lr is 0.001"),
    ],
)
def test_fields_that_contradict_each_other(tmp_path, record_json, place, change, reason):
    value = record_json()
    part = value
    for name in filter(None, place.split(".")):
        part = part[int(name)] if name.isdigit() else part[name]
    part.update(change)
    put(tmp_path, value)
    [found] = reasons(tmp_path)
    assert found.startswith(reason)
    with pytest.raises(EnvironmentProblem, match="not a valid record"):
        record.write(msgspec.convert(value, Record), tmp_path / value["run_id"])


CURVE = {0: 0.1, 2: 0.38, 4: 0.35, 8: 0.41}
CUT = {
    "split": "dev",
    "n": 200,
    "whole": 0.41,
    "se": 0.04,
    "points": [{"k": k, "value": value} for k, value in CURVE.items()],
    "rank_needed": 2,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"rank_needed": None, "se": 0.01}, ""),  # more than was tried, of a ΔW of a higher rank
        ({"rank_needed": 8, "se": 0.01}, ""),
        ({"rank_needed": 4}, "truncation.rank_needed: 4, but 2 is within truncation.se"),
        ({"rank_needed": None}, "truncation.rank_needed: None, but 2 is within"),
        ({"whole": 0.4}, "truncation.points: the last is 0.41, but truncation.whole is 0.4"),
        ({"points": CUT["points"][::-1]}, "truncation.points: k = [8, 4, 2, 0], which are not"),
        ({"points": CUT["points"][3:]}, "truncation.points: k = [8], which are not two or more"),
        ({"n": 201}, "truncation.n: 201 of dev, but metrics.primary has 200 of dev"),
        ({"split": "test"}, "truncation.n: 200 of test, but metrics.primary has 200 of dev"),
    ],
)
def test_the_rank_needed_follows_from_its_curve(tmp_path, record_json, change, reason):
    put(tmp_path, record_json(truncation=CUT | change))
    if reason:
        [found] = reasons(tmp_path)
        assert found.startswith(reason)
    else:
        assert len(record.load_all(tmp_path)[0]) == 1


def test_rounding_is_no_contradiction(tmp_path, record_json):
    scores = {"matthews": 1 + 1e-7, "accuracy": 0.7}
    value = record_json(metrics={"primary": {"value": 1 + 1e-7}, "all": {"dev": scores}})
    value["ranks"][0]["effective"] = 8 * (1 + 1e-7)
    put(tmp_path, value)
    assert len(record.load_all(tmp_path)[0]) == 1


@pytest.mark.parametrize(
    ("place", "key", "given"),
    [
        ("spec.options.method", "rank", 16),
        ("spec", "seed", 7),
        ("spec", "batch_size", 32),
        ("source", "data_hash", "e" * 64),
        ("backbone", "weights_hash", "e" * 64),
        ("", "group_id", "e" * 16),
    ],
)
def test_an_id_that_does_not_follow_from_the_content(tmp_path, record_json, place, key, given):
    value = record_json()
    part = value
    for name in filter(None, place.split(".")):
        part = part[name]
    part[key] = given
    put(tmp_path, value)
    [found] = reasons(tmp_path)
    assert found.startswith("run_id: it does not follow from specification, data and weights")


@pytest.mark.parametrize(
    "change",
    [{"accelerator": "gpu"}, {"devices": 2}, {"track": "wandb"}, {"out": "x"}, {"options": {"runtime": {"save": "x"}}}],
)
def test_how_it_was_executed_may_differ(tmp_path, record_json, change):
    value = record_json()
    ids = {key: value[key] for key in ("run_id", "group_id")}
    put(tmp_path, record_json(spec=change, **ids))
    assert len(record.load_all(tmp_path)[0]) == 1


@pytest.mark.parametrize(
    "given",
    [{"lr": 1}, {"lr": 2.0, "epochs": 3, "max_steps": None}, {"lr": None, "select": (1, 2)}, {"lr": 1e-3, "epochs": 3}],
)
def test_whole_numbers_given_in_python_have_the_id_that_the_run_had(tmp_path, record_json, given):
    """A record has them as floats, while `bench.run(lr=1)` hashed an int."""
    spec = RunSpec.from_json(record_json()["spec"]).with_(**given)
    ids = {name: getattr(spec, name)("d" * 64, "c" * 64) for name in ("run_id", "group_id")}
    more = {"lr": given["lr"] or 1.0}
    made = msgspec.convert(record_json(spec=spec.to_json(), **ids, **more), Record)
    record.write(made, record.folder(tmp_path, made.run_id))
    assert record.load_all(tmp_path) == ([made], [])
