"""Records on disk: what is written is read back, nothing half, nothing invalid, nothing outside the folder."""

from __future__ import annotations

import hashlib
import json
import os
import random
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from msgspec import structs

from bench.core.errors import EnvironmentProblem, UsageError
from bench.records import describe, record
from bench.records.spec import RunOptions, RunSpec
from bench.spectra import Delta

DOCS = Path(__file__).parents[2] / "docs" / "record.md"


def put(out, one):
    record.write(one, record.folder(out, one.run_id))
    return record.folder(out, one.run_id) / record.FILE


def test_round_trip(tmp_path, make_record):
    one = make_record()
    assert record.read(put(tmp_path, one)) == one
    assert RunSpec.from_json(one.spec.to_json()).to_json() == one.spec.to_json()
    assert record.load_all(tmp_path) == ([one], [])


def test_every_state_has_a_valid_form(tmp_path, make_record):
    error = {"what": "out of memory", "known": "", "todo": ""}
    nothing = {"metrics": None, "params": None, "cost": None, "lr": None}
    for seed, state in enumerate(["running", "cancelled", "preempted"]):
        put(tmp_path, make_record(state=state, spec={"seed": seed}, **nothing))
    for seed, state in enumerate(["failed", "oom", "diverged"]):
        put(tmp_path, make_record(state=state, error=error, spec={"seed": 10 + seed}, **nothing))
    records, problems = record.load_all(tmp_path)
    assert (len(records), problems) == (6, [])


def test_tuples_of_free_form_values_are_written_as_the_lists_they_are_read_as(tmp_path, make_record):
    one = make_record(source={"reading": {"size": (28, 28)}}, report={"course": ({"step": 1}, {"step": 2})})
    again = record.read(put(tmp_path, one))
    assert again.source.reading == {"size": [28, 28]} and again.report == {"course": [{"step": 1}, {"step": 2}]}


@pytest.mark.parametrize(
    ("factors", "how"),
    [
        ((torch.eye(3),), "gram"),
        ((torch.eye(3).double(),), "svd"),
        ((torch.eye(3)[:, :1], torch.eye(3)[:1]), "factors"),
    ],
)
def test_a_record_says_how_each_spectrum_was_computed(tmp_path, make_record, record_json, factors, how):
    row = Delta(factors=factors, nominal=min(map(min, (factor.shape for factor in factors)))).ranks("query").to_json()
    path = put(tmp_path, make_record(ranks=[row]))
    assert record.read(path).ranks[0].how == how
    with pytest.raises(EnvironmentProblem, match="not a valid record") as caught:
        record.validate(record_json(ranks=[row | {"how": "guessed"}]), path)
    assert "ranks[0].how" in caught.value.known and "guessed" in caught.value.known


@pytest.mark.parametrize("crash", ["replace", "fsync"])
def test_a_crash_leaves_the_old_record(tmp_path, make_record, monkeypatch, crash):
    old = make_record(state="running", metrics=None)
    path = put(tmp_path, old)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, crash, fail)
    with pytest.raises(KeyboardInterrupt):
        put(tmp_path, make_record())
    monkeypatch.undo()
    assert record.read(path) == old
    assert [p.name for p in path.parent.iterdir()] == [record.FILE]


def test_a_temporary_file_left_by_a_kill_is_no_record(tmp_path, make_record, monkeypatch):
    one = make_record()
    monkeypatch.setattr(os, "replace", lambda *_: None)  # the process died before the rename
    put(tmp_path, one)
    monkeypatch.undo()
    left = list(record.folder(tmp_path, one.run_id).iterdir())
    assert len(left) == 1 and left[0].name != record.FILE
    assert record.load_all(tmp_path) == ([], [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**30])
def test_numbers_that_json_does_not_hold_are_refused(tmp_path, make_record, value):
    one = make_record()
    one.metrics.all["dev"]["matthews"] = value
    with pytest.raises(EnvironmentProblem) as caught:
        put(tmp_path, one)
    assert "metrics.all.dev.matthews" in caught.value.known
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('"report": {"a": [1, 1e999]}', "report.a[1]"),
        ('"report": {"a": NaN}', "report.a"),
        (f'"report": {{"a": {10**30}}}', "report.a"),
        (f'"report": {{"a": {-(10**19)}}}', "report.a"),
    ],
)
def test_free_form_values_hold_only_numbers_of_json(tmp_path, make_record, text, field):
    path = put(tmp_path, make_record(report={"a": 1}))
    path.write_text(json.dumps(json.loads(path.read_text())).replace('"report": {"a": 1}', text))
    records, [problem] = record.load_all(tmp_path)
    assert records == [] and field in problem.known and str(path) in problem.what


@pytest.mark.parametrize("text", ["NaN", "1e999", "-Infinity"])
def test_a_file_with_nan_is_a_problem(tmp_path, make_record, text):
    path = put(tmp_path, make_record())
    path.write_text(path.read_text().replace('"value": 0.41', f'"value": {text}'))
    records, [problem] = record.load_all(tmp_path)
    assert records == [] and str(path) in problem.what and "metrics.primary.value" in problem.known


HOSTILE = ["../../etc/passwd", "..", "", "a" * 15, "A" * 16, "a" * 17, "a" * 16 + "\n", "/" + "a" * 15, "а" * 16]


@pytest.mark.parametrize("run_id", HOSTILE)
def test_hostile_ids_become_no_path(tmp_path, make_record, run_id):
    with pytest.raises(UsageError):
        record.folder(tmp_path, run_id)
    with pytest.raises(EnvironmentProblem, match="not a valid record"):
        record.write(structs.replace(make_record(), run_id=run_id), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["../", "*", "", "[a-f]", "g", "a" * 17])
def test_hostile_prefixes_find_nothing(tmp_path, make_record, prefix):
    put(tmp_path, make_record())
    with pytest.raises(UsageError):
        record.find(tmp_path, prefix)


@pytest.mark.usefixtures("any_id")
def test_find_by_prefix(tmp_path, make_record):
    ids = ["ab" + "0" * 14, "ab" + "1" * 14, "c" * 16]
    for run_id in ids:
        put(tmp_path, make_record(run_id=run_id))
    assert record.find(tmp_path, "c").run_id == ids[2]
    assert record.find(tmp_path, ids[0]).run_id == ids[0]
    with pytest.raises(UsageError, match="2 runs") as several:
        record.find(tmp_path, "ab")
    assert ids[0] in several.value.known and ids[1] in several.value.known
    with pytest.raises(UsageError, match="no run"):
        record.find(tmp_path, "d")


def test_a_copied_folder_is_not_counted_twice(tmp_path, make_record):
    path = put(tmp_path, make_record())
    copy = tmp_path / "copy" / record.FILE
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    records, [problem] = record.load_all(tmp_path)
    assert len(records) == 1 and str(copy) in problem.what and "run_id" in problem.known


def test_a_flipped_byte_changes_nothing_in_silence(tmp_path, make_record):
    """Of 400 flipped bits each is a problem, or, as in a space that became a line end, no change."""
    one = make_record(warnings=["ΔW barely left its start"], report={"budget": 17})
    path = put(tmp_path, one)
    content = path.read_bytes()
    draw = random.Random(0)
    for _ in range(400):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        records, problems = record.load_all(tmp_path)
        assert (records, len(problems)) in (([], 1), ([one], 0))


def test_the_digest_is_of_canonical_json_and_no_part_of_what_is_read(tmp_path, make_record):
    one = make_record()
    path = put(tmp_path, one)
    value = json.loads(path.read_text())
    digest = value.pop("digest")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert digest == hashlib.sha256(text.encode()).hexdigest() and record.read(path).digest == ""
    path.write_text(json.dumps({"digest": digest, **dict(reversed(value.items()))}, indent=4))
    assert record.read(path) == one, "order and spaces do not count"
    path.write_text(json.dumps(value))
    assert record.read(path) == one, "older records have none"
    record.write(structs.replace(one, digest="0" * 64), path.parent)
    assert record.read(path) == one, "a stale one is replaced"


BROKEN = {
    "empty": b"",
    "half": b'{"schema": 2, "run_',
    "not utf-8": b'"\xff"',
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "deep enough": b'{"a":' * 900 + b"1" + b"}" * 900,
    "digits": b"1" * 5000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_bad_files_are_named_and_the_others_read(tmp_path, make_record, content):
    good = make_record()
    put(tmp_path, good)
    bad = record.folder(tmp_path, "f" * 16) / record.FILE
    bad.parent.mkdir()
    bad.write_bytes(content)
    records, [problem] = record.load_all(tmp_path)
    assert records == [good]
    assert str(bad) in problem.what and problem.known and problem.todo
    with pytest.raises(EnvironmentProblem):
        record.find(tmp_path, "f" * 16)


def test_a_folder_in_place_of_the_file_is_a_problem(tmp_path):
    (record.folder(tmp_path, "a" * 16) / record.FILE).mkdir(parents=True)
    assert len(record.load_all(tmp_path)[1]) == 1


def test_no_folder_no_records(tmp_path):
    assert record.load_all(tmp_path / "none") == ([], [])


def test_other_schema_versions_are_named(tmp_path, make_record):
    path = put(tmp_path, make_record())
    path.write_text(path.read_text().replace('"schema": 2,', '"schema": 7,'))
    _, [problem] = record.load_all(tmp_path)
    assert str(path) in problem.what and "version 7" in problem.what and "version 2" in problem.known


FIELDS = {field.path: field for field in describe.fields()}


@pytest.mark.parametrize("field", [path for path, field in FIELDS.items() if field.required])
def test_every_field_is_needed_and_named_where_it_is_missing(record_json, field):
    selection = {"trials": [{"lr": 1e-3, "value": 0.5, "run_id": None, "state": "done"}]}
    selection |= {"metric": "accuracy", "split": "holdout", "task": "glue/sst2", "chosen": 1e-3}
    tracking = {"kind": "wandb", "mode": "offline", "id": "x", "error": None, "directory": None}
    sweep = [{"n": 0, "primary": 0.41, "metrics": {"dev": {"matthews": 0.41}}}]
    evaluations = [{"step": 10, "metrics": sweep[0]["metrics"]}]
    row = {"of": "updates", "layer": "a", "step": 9, "stable": 1.0, "effective": 1.0, "energy90": 1, "norm": 0.5}
    series = {"of": "updates", "layers": 1, "steps": [0, 9], "effective": [None, 1.0]}
    points = [{"k": 0, "value": 0.41}, {"k": 8, "value": 0.41}]
    cut = {"split": "dev", "n": 200, "whole": 0.41, "se": 0.03, "points": points, "rank_needed": 0}
    cut["layers"] = [{"layer": "a", "value": 0.4, "needed": False}]
    more = {
        "truncation": cut,
        "sweep": sweep,
        "evaluations": evaluations,
        "spectra": {"layers": [row], "series": [series]},
    }
    parent = {"run_id": "a" * 16, "group_id": "b" * 16, "method": "mae", "task": "t", "backbone": "vit", "parent": None}
    one = record_json(selection=selection, tracking=tracking, backbone={"parent": parent}, **more)
    record.validate(one, Path("x"))
    *parents, last = field.replace("[]", "").split(".")
    inside = one | {"state": "failed", "error": {"what": "", "known": "", "todo": ""}} if parents == ["error"] else one
    part = inside
    for name in parents:
        part = part[name][0] if isinstance(part[name], list) else part[name]
    del part[last]
    with pytest.raises(EnvironmentProblem) as caught:
        record.validate(inside, Path("here/record.json"))
    assert "here/record.json" in caught.value.what and f"missing required field `{last}`" in caught.value.known


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"state": "finished"}, "state"),
        ({"lr": "1e-3"}, "lr"),
        ({"lr": None}, "lr"),
        ({"metrics": None}, "metrics"),
        ({"error": {"what": "", "known": "", "todo": ""}}, "error"),
        ({"params": {"total": -1}}, "params.total"),
        ({"cost": {"steps": 1.5}}, "cost.steps"),
        ({"source": {"kind": "guessed"}}, "source.kind"),
        ({"metrics": {"primary": {"higher_is_better": 1}}}, "metrics.primary.higher_is_better"),
        ({"surprise": 1}, "surprise"),
        ({"state": "failed"}, "error"),
        ({"state": "diverged", "error": {"what": "", "known": "", "todo": ""}}, "metrics"),
    ],
)
def test_wrong_values_are_named(record_json, change, field):
    with pytest.raises(EnvironmentProblem) as caught:
        record.validate(record_json(**change), Path("x"))
    assert field in caught.value.known


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (("metrics", "all", "dev"), {"accuracy": "high"}, "metrics.all.dev.accuracy: Expected `float`"),
        (("spec", "options", "method"), {"rank": [8]}, "spec.options.method.rank: Expected"),
        (("spec", "options"), {"surprise": {}}, "spec.options: Object contains unknown field `surprise`"),
        (
            ("source", "evaluation_examples"),
            {"test.x[0]": -1},
            "source.evaluation_examples.test.x[0]: Expected `int` >=",
        ),
        (("provenance", "packages"), {"a - at `$.b[...]": 1}, "provenance.packages.a - at `$.b[...]: Expected `str`"),
        ((), {"x - at `$.spec[...]": 1}, "unknown field `x - at `$.spec[...]`"),
    ],
)
def test_an_error_names_the_key_of_a_mapping(record_json, place, value, field):
    one = record_json()
    part = one
    for name in place:
        part = part[name]
    part.update(value)
    with pytest.raises(EnvironmentProblem) as caught:
        record.validate(one, Path("x"))
    assert field in caught.value.known


def test_a_record_does_not_change(make_record):
    one = make_record()
    with pytest.raises(AttributeError):
        one.lr = 1.0
    with pytest.raises(ValueError, match="lr"):
        structs.replace(one, lr=None)
    assert record.is_done(one) and not record.is_done(structs.replace(one, state="running"))


def test_the_specification_of_a_record_is_that_of_a_run(make_record):
    """`space` and `trials` are absent where they are not used."""
    spec = make_record(spec={"space": {"method.rank": [4, 8]}, "trials": 20}).spec
    assert {*RunSpec.from_json(spec.to_json()).to_json()} == {*spec.__struct_fields__}
    plain = make_record().spec
    assert {*spec.__struct_fields__} - {*RunSpec.from_json(plain.to_json()).to_json()} == {"space", "trials"}
    assert [one.name for one in fields(RunOptions)] == [*spec.options.__struct_fields__]
    assert spec.options.flat()["method.rank"] == 8


def test_the_json_schema_is_complete():
    made = describe.json_schema()
    assert made["required"] == [path for path, field in FIELDS.items() if field.required and "." not in path]
    assert all(part["additionalProperties"] is False for part in made["$defs"].values())
    assert json.loads(json.dumps(made))["title"] == "lowrank-bench record, schema version 2"


def test_the_documentation_has_a_row_for_every_field():
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(field.row() for field in FIELDS.values())


def test_a_record_is_plain_ascii_json_that_others_may_read(tmp_path, make_record):
    path = put(tmp_path, make_record(warnings=["ΔW \ud800 |"]))
    assert path.read_bytes().isascii() and json.loads(path.read_text())["warnings"] == ["ΔW \ud800 |"]
    assert record.read(path).warnings == ("ΔW \ud800 |",)
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
