"""Records of strangers: they hold nobody up, steer no terminal, and end in no traceback."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.cli import main
from bench.config.options import option
from bench.config.sections import MethodConfig
from bench.core import registry
from bench.core.text import dump_json, printable
from bench.records import record
from bench.records.fields import DEEPEST

STEERING = "a\x1b[31mb\x07\x9b0mc\u202egnp\u2028\U000e0041\x7f"
INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def put(out, value):
    path = out / value["run_id"] / record.FILE
    path.parent.mkdir()
    path.write_text(json.dumps(value))
    return path


def test_text_is_printable_as_unicode_says():
    every = "".join(map(chr, range(0x110000)))
    expected = "".join(" " if unicodedata.category(c) in INVISIBLE else c for c in every)
    other = [c for c, one, two in zip(every, printable(every), expected, strict=True) if one != two]
    assert {unicodedata.category(c) for c in other} <= {"Cn"}, "this Python may know an older Unicode"


def test_json_escapes_what_is_not_printable():
    value = {"name": STEERING + "\ud800ΔW", "more": ["\n"]}
    text = dump_json(value)
    assert json.loads(text) == value and "ΔW" in text
    assert {c for c in text if unicodedata.category(c) in INVISIBLE} == {"\n"}


@pytest.mark.parametrize(
    "words",
    [
        ["list", "runs"],
        ["list", "runs", "--json"],
        ["show", "RUN"],
        ["show", "RUN", "--json"],
        ["show", "\x1b[31m"],
        *(["leaderboard", "--format", name] for name in ("md", "csv", "tex", "json", "html")),
        ["leaderboard", "--baseline", "\x1b[31m"],
        ["compare", "lora", "seed=1"],
        ["compare", "lora", "method=\x9b0m"],
    ],
)
def test_no_control_character_reaches_the_terminal(tmp_path, record_json, capsys, words):
    hostile = record_json(
        spec={"method": STEERING, "seed": 1, "options": {"method": {STEERING: STEERING}}},
        backbone={"name": STEERING},
        source={"revision": STEERING, "reading": {STEERING: STEERING}},
        provenance={"command": [STEERING], "packages": {STEERING: STEERING}},
        warnings=[STEERING],
        report={STEERING: [{STEERING: STEERING}]},
        metrics={"primary": {"name": STEERING}, "all": {"dev": {STEERING: 0.41}}},
        evaluations=[{"step": 1, "metrics": {STEERING: {STEERING: 0.5}}}],
    )
    error = dict.fromkeys(("what", "known", "todo"), STEERING)
    for value in (hostile, record_json(), record_json(state="failed", spec={"seed": 2}, error=error)):
        put(tmp_path, value)
    put(tmp_path, record_json(spec={"seed": 3}) | {STEERING: 1})  # an error that names the field
    code = main([word.replace("RUN", hostile["run_id"]) for word in [*words, "--runs", str(tmp_path)]])
    shown = capsys.readouterr()
    assert code in (0, 2) and "unexpected" not in shown.err
    assert {c for c in shown.out + shown.err if unicodedata.category(c) in INVISIBLE} <= {"\n"}


def nested(depth):
    return {"a": nested(depth - 1)} if depth else 1


def invisible(capsys):
    shown = capsys.readouterr()
    return {c for c in shown.out + shown.err if unicodedata.category(c) in INVISIBLE}


class TheirConfig(MethodConfig):
    __doc__ = f"Their method {STEERING}.\n\nMore {STEERING}."
    option: int = option(1, STEERING)


@pytest.mark.parametrize("words", [["show", "theirs"], ["list", "methods"]])
def test_texts_of_third_parties_steer_no_terminal(words, monkeypatch, capsys):
    module = ModuleType("their_methods")
    module.Theirs = type("Theirs", (), {"Config": TheirConfig, "__doc__": STEERING})
    monkeypatch.setitem(sys.modules, "their_methods", module)
    monkeypatch.setitem(registry.BUILTIN["methods"], "theirs", registry.Entry("their_methods:Theirs"))
    registry.entries.cache_clear()
    assert main(words) == 0
    monkeypatch.undo()
    registry.entries.cache_clear()
    assert invisible(capsys) == {"\n"}


def test_names_in_a_file_of_weights_steer_no_terminal(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    nothing = np.full((2, 2), np.nan)
    tensors = {STEERING: np.eye(3), f"pos_embed{STEERING}": np.ones((1, 2, 3)), f"other{STEERING}": nothing}
    save_file(tensors, f"{STEERING}.safetensors")
    assert main(["spectra", f"{STEERING}.safetensors"]) == 1
    shown = capsys.readouterr()
    assert "error: other" in shown.err and "pos_embed" in shown.err and "pictures:" in shown.out
    assert main(["spectra", f"{STEERING}.safetensors", "-v", "--layer", "nothing", "--of", "weights"]) == 2
    shown = shown.out + shown.err + capsys.readouterr().err
    assert {c for c in shown if unicodedata.category(c) in INVISIBLE} == {"\n"}


@pytest.mark.parametrize(
    "change",
    [
        {"evaluations": [{"step": 1, "metrics": {}}]},
        {"evaluations": [{"step": 1, "metrics": {"dev": {}}}]},
        {
            "evaluations": [
                {"step": 1, "metrics": {"dev": {"f1": 0.5}}},
                {"step": 2, "metrics": {"other": {"mse": 1.0}}},
            ]
        },
        {"source": {"reading": {"text_pair": "x"}}},
        {"source": {"reading": {"text_pair": None, "files": [1], "labels": 7, "scale": 5, "sizes": []}}},
        {"report": {"rows": [{}], "": [], "x": {}, "y": [{"": 1}]}},
        {"report": nested(DEEPEST - 2)},
    ],
)
def test_odd_records_are_shown(tmp_path, record_json, capsys, change):
    value = record_json(**change)
    put(tmp_path, value)
    for words in (["show", value["run_id"]], ["list", "runs"], ["leaderboard", "--format", "json"]):
        assert main([*words, "--runs", str(tmp_path)]) == 0, capsys.readouterr().err


def parents(depth):
    if not depth:
        return None
    ids = {"run_id": "a" * 16, "group_id": "b" * 16}
    return ids | {"method": "mae", "task": "t", "backbone": "vit", "parent": parents(depth - 1)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"report": nested(900)}, "nested deeper than 64 levels"),
        ({"source": {"reading": nested(70)}}, "nested deeper than 64 levels"),
        ({"backbone": {"parent": {}}}, "backbone.parent: Object missing required field `run_id`"),
        ({"backbone": {"parent": parents(200)}}, "backbone.parent: nested deeper than 64 levels"),
    ],
)
def test_records_beyond_measure_are_problems(tmp_path, record_json, change, reason):
    good = record_json(spec={"seed": 1})
    bad = record_json()
    for part, given in change.items():
        bad[part] = {**bad[part], **given} if part in ("source", "backbone") else given
    for value in (good, bad):
        put(tmp_path, value)
    [one], [problem] = record.load_all(tmp_path)
    assert one.run_id == good["run_id"] and reason in problem.known


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large"])
def test_what_is_no_file_of_a_record_s_size_holds_nobody_up(tmp_path, kind):
    path = tmp_path / ("f" * 16) / record.FILE
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(200_000_000)
    records, [problem] = record.load_all(tmp_path)
    known = {"large": "may have 16,777,216", "folder": "Is a directory"}.get(kind, "no regular file")
    assert records == [] and isinstance(problem, record.BrokenRecord) and known in str(problem)


def test_a_record_that_nobody_could_read_is_not_written(tmp_path, make_record):
    one = make_record(warnings=["x" * record.MOST_BYTES])
    with pytest.raises(record.EnvironmentProblem, match="not a valid record"):
        record.write(one, record.folder(tmp_path, one.run_id))
    assert list(tmp_path.iterdir()) == []
