"""Tables of records: right statistics, no mean over missing cells, only like compared with like, no broken Markdown."""

from __future__ import annotations

import csv
import io
import random
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from msgspec import structs
from records import altered, build_rows

from bench.core.text import format_score
from bench.records import record
from leaderboard.render import cells, csv_export
from leaderboard.render.markdown import escape, render
from leaderboard.tables.build import build_tables
from leaderboard.tables.grouping import format_number
from leaderboard.tables.table import Stat

TASKS = ("cola", "mrpc", "rte")


def parse(markdown):
    """Minimal GitHub table parser: every table as a list of rows of unescaped cells; header first, no rule."""
    found, current = [], None
    for line in [*markdown.split("\n"), ""]:
        if line.startswith("|"):
            cells = [c.strip() for c in re.findall(r"((?:\\.|[^\\|])*)\|", line[1:])]
            current = [] if current is None else current
            current.append([re.sub(r"\\(.)", r"\1", cell) for cell in cells])
        elif current is not None:
            assert all(re.fullmatch(r"-{2,}[-:]", cell) for cell in current[1]), current[1]
            found.append([current[0], *current[2:]])
            current = None
    return found


def columns(table):
    return {name: [line[i] for line in table[1:]] for i, name in enumerate(table[0])}


def test_mean_and_deviation_equal_numpy(grid):
    records, scores = grid()
    for row in build_rows(records):
        mine = scores[["full", "lora"].index(row.label)]
        assert [cell.mean for cell in row.cells] == pytest.approx(mine.mean(axis=1), rel=1e-14)
        assert [cell.sd for cell in row.cells] == pytest.approx(mine.std(axis=1, ddof=1), rel=1e-12)
        assert {cell.n for cell in row.cells} == {4}
        assert row.average.mean == pytest.approx(mine.mean(), rel=1e-14)
        assert row.average.sd == pytest.approx(mine.mean(axis=0).std(ddof=1), rel=1e-12)


def test_one_seed_has_no_deviation_and_no_rank(run):
    text = render([run("lora", "cola", 0, 0.5), run("full", "cola", 0, 0.25)])
    [table] = parse(text)
    assert columns(table)["cola matthews ↑"] == ["0.500", "0.250"]
    assert "rank" not in table[0]
    assert Stat.of([0.5]) == Stat(0.5, None, 1)


def test_a_missing_cell_takes_the_average_away_and_changes_no_other(grid):
    records, _ = grid()
    lost = [r for r in records if not (r.spec.method == "lora" and r.spec.task == "glue/rte")]
    before, after = ({row.label: row for row in build_rows(some)} for some in (records, lost))
    assert replace(after["full"], average_rank=1.0) == replace(before["full"], average_rank=1.0)
    assert after["full"].average_rank == 1.0, "places are among complete rows"
    assert after["lora"].average is None and after["lora"].rank is None
    assert after["lora"].cells[:2] == before["lora"].cells[:2]
    assert columns(parse(render(lost))[0])["average (3 tasks)"][-1] == "2/3"


def test_a_task_at_which_everybody_failed_still_counts(run):
    some = [run("lora", "cola", s, 0.5) for s in range(3)] + [run("lora", "mrpc", s) for s in range(3)]
    [table] = parse(render(some))
    assert columns(table)["average (2 tasks)"] == ["1/2"]
    assert columns(table)["mrpc"] == ["–"]


def test_seeds_that_lack_a_task_do_not_enter_the_average(grid):
    records, scores = grid(methods=("lora",))
    kept = [r for r in records if (r.spec.task, r.spec.seed) != ("glue/rte", 3)]
    [row] = build_rows(kept)
    assert row.average.n == 3
    assert row.average.mean == pytest.approx(scores[0, :, :3].mean(), rel=1e-14)
    assert row.cells[0].mean == pytest.approx(scores[0, 0].mean(), rel=1e-14)
    text = render(kept)
    assert "seeds differ: cola 4, mrpc 4, rte 3" in text and "average is over the 3" in text
    assert columns(parse(text)[0])["seeds"] == ["3–4"]


def test_no_common_seed_no_average(run):
    some = [run("lora", "cola", 0, 0.5), run("lora", "mrpc", 1, 0.5)]
    [row] = build_rows(some)
    assert row.average is None
    assert columns(parse(render(some))[0])["average (2 tasks)"] == ["–"]
    assert "no seed has every task" in render(some)


def test_the_order_of_records_changes_nothing(grid, run):
    records, _ = grid(methods=("full", "lora", "deeplora"))
    records += [run("linear", "cola", 0), run("linear", "rte", 1, state="oom")]
    records += [run("lora", "cola", 0, 0.1, source={"kind": "hub", "revision": "abc"})]
    note = "a note that the other runs of this task lack"
    records[0] = altered(records[0], lambda r: r.task.update(note=note))
    expected = render(records)
    for seed in range(5):
        random.Random(seed).shuffle(records)
        assert render(records) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"source": {"kind": "hub"}},
        {"source": {"revision": "2"}},
        {"backbone": {"name": "bert-base", "parameters": 110_000_000}},
        {"backbone": {"weights_hash": "e" * 64}},
        {"spec": {"max_steps": 300}},
        {"spec": {"max_steps": None, "epochs": 3}},
        {"spec": {"batch_size": 32}},
        {"spec": {"train_samples": 16}},
        {"spec": {"precision": "bf16-mixed"}},
    ],
)
def test_what_differs_is_never_in_one_table(grid, run, other):
    records, _ = grid(methods=("lora",))
    records += [run("full", task, seed, 0.9, **other) for task in TASKS for seed in range(3)]
    found = build_tables(records)
    assert [[row.label for row in table.rows] for table in found] in ([["lora"], ["full"]], [["full"], ["lora"]])
    assert len({table.heading for table in found}) == 2
    assert len(parse(render(records))) == 2


def test_the_heading_says_what_was_compared(run):
    [table] = build_tables([run("lora", "cola", 0, 0.5, spec={"train_samples": 16})])
    said = [
        "glue",
        "all-MiniLM-L6-v2 (22.7 M)",
        "embedded data (1)",
        "150 steps",
        "batch 16",
        "16 training examples",
        "dev",
    ]
    assert [word for word in said if word not in table.heading] == []


def test_folders_of_one_directory_are_one_source_unless_their_data_differ(run):
    def at(folder, task, value, data):
        return run("lora", task, 0, value, source={"kind": "directory", "revision": folder, "data_hash": data})

    one = [at("CoLA", "cola", 0.5, "a"), at("RTE", "rte", 0.7, "b")]
    [table] = build_tables(one)
    assert table.rows[0].average.mean == pytest.approx(0.6) and "directory data (CoLA, RTE)" in table.heading
    assert len(build_tables([*one, at("CoLA", "cola", 0.9, "changed")])[0].columns) == 3
    other = build_tables([*one, at("CoLA-cleaned", "cola", 0.9, "changed")])
    assert [len(table.columns) for table in other] == [2, 1]


def test_data_that_changed_under_one_name_has_a_column_of_its_own(run):
    some = [run("lora", "cola", s, 0.5) for s in range(3)]
    some += [run("full", "cola", s, 0.9, source={"data_hash": "changed"}) for s in range(3)]
    some += [run("linear", "cola", s, 0.7, task={"version": 2}) for s in range(3)]
    [table] = build_tables(some)
    assert len(table.columns) == 3 and all(sum(c is not None for c in row.cells) == 1 for row in table.rows)
    assert [row.average for row in table.rows] == [None] * 3
    assert len(set(parse(render(some))[0][0])) == len(parse(render(some))[0][0])


def test_rows_of_one_method_tell_what_they_differ_in(run):
    some = [
        run("lora", "cola", 0, 0.1),
        run("lora", "cola", 0, 0.2, spec={"options": {"method": {"rank": 16}}}),
        run("lora", "cola", 0, 0.3, spec={"lr": 3e-3}, lr=3e-3),
        run("lora", "cola", 0, 0.4, spec={"options": {"head": {"trainable": False}}}),
        run("full", "cola", 0, 0.5, spec={"options": {"method": {}}}),
    ]
    labels = {row.cells[0].mean: row.label for row in build_rows(some)}
    assert labels[0.1] == "lora (head.trainable=true, lr=1e-3, rank=8)"
    assert labels[0.2] == "lora (head.trainable=true, lr=1e-3, rank=16)"
    assert labels[0.3] == "lora (head.trainable=true, lr=3e-3, rank=8)"
    assert labels[0.4] == "lora (head.trainable=false, lr=1e-3, rank=8)"
    assert labels[0.5] == "full"


@pytest.mark.parametrize("field", ["devices", "accelerator", "track", "out", "options"])
def test_where_it_ran_makes_no_row(run, field):
    value = {
        "devices": 4,
        "accelerator": "gpu",
        "track": "wandb",
        "out": "other",
        "options": {"runtime": {"workers": 3}},
    }[field]
    [row] = build_rows([run("lora", "cola", 0, 0.1), run("lora", "cola", 1, 0.2, spec={field: value})])
    assert row.cells[0].n == 2


def test_a_learning_rate_chosen_per_task_is_one_row(run):
    spec = {"lr": None, "select": [1e-4, 3e-4]}
    some = [run("lora", "cola", 0, 0.1, spec=spec, lr=1e-4), run("lora", "rte", 0, 0.2, spec=spec, lr=3e-4)]
    trial = run("lora", "cola", 0, 0.99, spec={"lr": 1e-4, "holdout": 100}, lr=1e-4)
    [row] = build_rows([*some, trial])
    assert row.label == "lora" and row.average.mean == pytest.approx(0.15) and row.lrs == (1e-4, 3e-4)
    text = render([*some, trial])
    assert columns(parse(text)[0])["lr"] == ["1e-4…3e-4 (selected)"]
    assert "0.99" not in text and "1 run on held-out" in text


def test_a_task_that_selects_for_itself_is_no_setting(run):
    """And one that selects for all is: its own run stands in the row of the runs that it selected for."""

    def labels(*selected_on):
        spec = {"lr": None, "select": [1e-3, 3e-3]}
        made = [run("lora", task, 0, 0.5, spec={**spec, "select_on": on}) for task, on in selected_on]
        return {row.label: sum(cell is not None for cell in row.cells) for row in build_rows(made)}

    each = [("cola", "glue/cola"), ("mrpc", "glue/mrpc"), ("rte", "glue/rte")]
    mrpc = [(task, "glue/mrpc") for task in TASKS]
    assert labels(*each) == {"lora": 3}
    assert labels(*mrpc) == {"lora": 3}
    assert labels(*{*each, *mrpc}) == {"lora (select_on=each task)": 2, "lora (select_on=glue/mrpc)": 3}


def test_ranks_share_ties_and_need_three_seeds(run):
    scores = {"a": 0.5, "b": 0.7, "c": 0.7, "d": 0.70001, "e": 0.2}
    some = [run(method, "cola", s, value) for method, value in scores.items() for s in range(3)]
    some += [run("two seeds", "cola", s, 0.9) for s in range(2)]
    [table] = parse(render(some))
    assert columns(table)["method"] == ["two seeds ¹", "b", "c", "d", "a", "e"]
    assert "- ¹ two seeds: 2 seeds, fewer than three: no rank" in render(some)
    assert columns(table)["rank"] == ["–", "1", "1", "1", "4", "5"]


def test_a_metric_that_should_fall_is_ranked_from_below(run):
    some = [run(m, "cola", s, v) for m, v in {"a": 2.0, "b": 1.0}.items() for s in range(3)]
    some = [altered(one, lambda r: r.metrics.primary.update(higher_is_better=False)) for one in some]
    [table] = parse(render(some))
    assert columns(table)["method"] == ["b", "a"] and "cola matthews ↓" in table[0]
    mixed = [*some, *(run(m, "rte", s, 0.5) for m in "ab" for s in range(3))]
    assert [row.average for row in build_rows(mixed)] == [None, None]


def test_without_any_average_rows_go_by_tasks_then_name(run):
    some = [run("b", "cola", 0, 0.1), run("a", "cola", 0, 0.9), run("c", "cola", 0, 0.1), run("c", "rte", 0)]
    some += [run("d", "mrpc", 0, 0.2), run("d", "cola", 0, 0.2)]
    assert [row.label for row in build_rows(some)] == ["d", "a", "b", "c"]


def test_parameters_ranks_and_times(run):
    lora = [run("lora", "cola", s, 0.5, params={"trainable": 68_340, "total": 22_780_000}) for s in range(2)]
    ranks = [structs.replace(layer, effective=3.5, norm=0.1) for layer in lora[1].ranks]
    lora[1] = structs.replace(lora[1], ranks=tuple(ranks))
    linear = run("linear", "cola", 0, 0.5, params={"trainable": 770}, ranks=[], cost={"train_s": 200.0})
    [table] = parse(render([*lora, linear]))
    found = columns(table)
    assert found["method"] == ["linear", "lora"]
    assert found["trained"] == ["770 (0.0034 %)", "0.07 M (0.3 %)"]
    assert found["effective rank"] == ["–", "3.0 / 8"]  # mean of (2 + 3)/2 and 3.5
    assert found["‖ΔW‖₂"] == ["–", "0.4"]  # mean of .7 and .1
    assert found["train time"] == ["3.3 min", "38 s"]
    assert found["seeds"] == ["1", "2"]


def test_failures_and_warnings_are_noted_below_the_table(run):
    some = [run("lora", "cola", s, 0.5, warnings=["ΔW barely moved"]) for s in range(2)]
    some += [run("lora", "rte", 0), run("lora", "rte", 1, state="diverged"), run("lora", "mrpc", 0, state="oom")]
    text = render(some)
    for told in ("1 failed (rte seed 0)", "1 diverged (rte seed 1)", "1 oom (mrpc seed 0)", "2 runs: ΔW barely moved"):
        assert told in text
    assert columns(parse(text)[0])["method"] == ["lora ¹"]


def test_devices_and_caveats_are_noted(run):
    some = [run("lora", "cola", 0, 0.5), run("full", "cola", 0, 0.5, cost={"device": "H200"}, task={"note": "odd"})]
    some[0] = altered(some[0], lambda r: r.task.update(note="odd"))
    [table] = parse(render(some))
    assert "cola matthews ↑ ¹" in table[0] and "train time ²" in table[0]
    assert "- ¹ odd\n- ² train time: mean of a run; devices differ: H200, cpu" in render(some)


def test_an_older_run_of_the_same_seed_is_left_out(run, make_record):
    old = run("lora", "cola", 0, 0.1, run_id="a" * 16)
    new = run("lora", "cola", 0, 0.2, run_id="b" * 16, provenance={"created": "2026-01-01T00:00:00+00:00"})
    failed = run("lora", "cola", 0, run_id="c" * 16, provenance={"created": "2027-01-01T00:00:00+00:00"})
    [row] = build_rows([old, new, failed])
    assert row.cells == (Stat(0.2, None, 1),) and row.superseded == 2 and row.failures == {}
    assert build_rows([new, new])[0].cells == (Stat(0.2, None, 1),) and build_rows([new, new])[0].superseded == 0


HOSTILE = [
    "a|b", "`code`", "<script>alert(1)</script>", "two\nlines\r\nmore", "\\|", "\\", "\\\\|", "[x](javascript:y)",
    "**bold** _em_", "\x1b[31mred\x1b[0m", "\ud800", "\u202egnp", "&lt;", "| --- |", "中文字", "\u2028", "~~x~~", "",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_in_its_cell(run, text):
    some = [
        run(text, "cola", 0, 0.5, warnings=[text]),
        run("lora", "cola", 0, 0.4, spec={"options": {"method": {"target": text}}}, cost={"device": text}),
        run("lora", text or "x", 0, 0.4, task={"note": text}),
    ]

    def named(record):
        record.source.revision = record.backbone.name = text

    some[0] = altered(some[0], lambda r: r.metrics.primary.update(name=text))
    some[2] = altered(some[2], named)
    rendered = render(some)
    found = parse(rendered)
    assert len(found) == 2
    assert [len({len(line) for line in table}) for table in found] == [1, 1]
    assert sum(line.startswith("#") for line in rendered.split("\n")) == 2
    assert not re.search(r"(?<!\\)<|[\x00-\x09\x0b-\x1f\u2028\u202e\ud800]", rendered)
    rendered.encode()


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_reads_as_it_was(text):
    plain = re.sub(r"\\(.)", r"\1", escape(text))
    assert plain == " ".join(re.sub(r"[\x00-\x1f\ud800\u202e\u2028]", " ", text).split())


def test_columns_are_equally_wide_in_a_terminal(grid, run):
    records, _ = grid()
    records.append(run("lora", "cola", 9, warnings=["x"], spec={"options": {"method": {"rank": 128}}}))
    lines = [line for line in render(records).split("\n") if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert len({tuple(i for i, c in enumerate(line) if c == "|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-3, "1e-3"), (3e-4, "3e-4"), (1.5e-4, "1.5e-4"), (0.01, "1e-2"), (0.5, "0.5"), (2.0, "2"), (0.0, "0")],
)
def test_numbers_as_people_type_them(value, text):
    assert format_number(value) == text and float(text) == value


def test_a_folder_with_a_broken_file(tmp_path, grid):
    records, _ = grid()
    for one in records:
        record.write(one, record.folder(tmp_path, one.run_id))
    (tmp_path / ("f" * 16)).mkdir()
    (tmp_path / ("f" * 16) / record.FILE).write_text("{")
    found, [problem] = record.load_all(tmp_path)
    assert render(found) == render(records) and "f" * 16 in problem.what


@pytest.mark.parametrize(
    ("change", "header"),
    [
        ({"name": "accuracy"}, "cola accuracy ↑"),
        ({"split": "test"}, "cola matthews on test ↑"),
        ({"n": 10}, "cola matthews n=10 ↑"),
        ({"higher_is_better": False}, "cola matthews lower is better ↓"),
    ],
)
def test_scores_of_different_measures_are_never_averaged(run, change, header):
    def other(record):
        record.metrics.primary |= change

    some = [run(method, "cola", seed, 0.5) for method in ("full", "lora") for seed in range(3)]
    odd = [altered(run("lora", "cola", seed, 0.9), other) for seed in range(2)]
    failed = run("lora", "cola", 4)
    [table] = build_tables([*some[:3], *odd, some[5], failed], baseline="full")
    assert header in map(cells.header, table.columns) and len(table.columns) == 2
    full, lora = sorted(table.rows, key=lambda row: row.label)
    assert [[cell and (cell.mean, cell.n) for cell in row.cells] for row in (full, lora)] in (
        [[(0.5, 3), None], [(0.5, 1), (0.9, 2)]],
        [[None, (0.5, 3)], [(0.9, 2), (0.5, 1)]],
    )
    assert (lora.average, lora.rank, lora.difference, lora.states) == (None, None, None, {"done": 3, "failed": 1})
    names = {line["task"] for line in csv.DictReader(io.StringIO(csv_export.render([table])))}
    assert len(names - {""}) == 1 + ("name" not in change)


def test_a_metric_of_the_method_is_in_a_table_of_its_own_run_by_run(run):
    own = altered(run("lora", "cola", 0, 0.9), lambda record: record.metrics.primary.update(of="method"))
    others = [run(method, "cola", seed, 0.5) for method in ("full", "lora") for seed in (1, 2)]
    first, second = build_tables([own, *others])
    assert [table.suite for table in (first, second)] == ["glue", "glue · lora"]
    assert [len(table.rows) for table in (first, second)] == [2, 1]


def test_the_largest_class_is_beside_an_accuracy(run):
    def change(record):
        record.metrics.majority = {"dev": 0.683}
        record.warnings = ["the outputs name one class only on dev: no class was learned"]

    some = [altered(run("lora", task, seed, 0.5), change) for task in ("cola", "rte") for seed in range(3)]
    [table] = build_tables(some)
    assert [column.note for column in table.columns] == ["", "the largest class has 68.3 % of dev"]
    shown = render(some)
    assert "the largest class has 68.3 % of dev" in shown and "6 runs: the outputs name one class only on dev" in shown


def test_the_largest_class_is_not_beside_a_balanced_accuracy(run):
    def change(record):
        record.metrics.majority = {"dev": 0.683}
        record.metrics.all = {"dev": {"balanced_accuracy": 0.5}}
        record.metrics.primary.update(name="balanced_accuracy")

    [table] = build_tables([altered(run("lora", "rte", seed, 0.5), change) for seed in range(3)])
    assert [column.note for column in table.columns] == [""]


def test_nothing_to_show(tmp_path, run):
    assert render([]) == "No scores yet.\n"
    assert record.load_all(tmp_path / "none") == ([], [])
    assert parse(render([run("lora", "cola", 0)]))[0][1][0] == "lora ¹"


def test_tables_need_no_torch():
    code = (
        "import sys, leaderboard.render.markdown\n"
        "print([m for m in ('torch', 'lightning', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def trained_by(seed, group="a" * 16):
    """A backbone that a run of mae with that seed left."""
    parent = {"run_id": f"{seed:016x}", "group_id": group, "method": "mae", "task": "digits"}
    parent |= {"backbone": "vit", "parent": None}
    return {"name": f"runs:{seed:016x}", "parameters": 200_000, "weights_hash": f"{seed:064x}", "parent": parent}


def test_backbones_that_differ_only_in_the_seed_of_their_training_are_one_table(run):
    values = {0: 0.5, 1: 0.7, 2: 0.6}
    records = [run("linear", "cola", seed, value, backbone=trained_by(seed)) for seed, value in values.items()]
    [table] = build_tables(records)
    [row] = table.rows
    assert "vit + mae on digits (0.20 M)" in table.heading
    assert row.cells[0] == Stat.of([*values.values()])
    other = run("linear", "cola", 0, 0.9, backbone=trained_by(5, group="b" * 16))
    assert len(build_tables([*records, other])) == 2


def test_one_seed_on_two_trained_backbones_counts_twice(run):
    [row] = build_rows([run("linear", "cola", 0, value, backbone=trained_by(n)) for n, value in ((1, 0.5), (2, 0.7))])
    assert (row.cells[0].n, row.superseded) == (2, 0)


def test_a_metric_of_a_methods_own_is_in_a_table_of_its_own(run):
    loss = {"name": "mlm_loss", "higher_is_better": False, "of": "method"}
    own = altered(run("mlm", "cola", 0, 2.5), lambda r: r.metrics.primary.update(loss))
    failed = run("mlm", "cola", 1)
    found = build_tables([own, failed, run("lora", "cola", 0, 0.5)])
    assert [[row.method for row in table.rows] for table in found] == [["lora"], ["mlm"]]
    assert [table.suite for table in found] == ["glue", "glue · mlm"]


@pytest.mark.parametrize(
    ("value", "higher", "text"),
    [
        (5.534e-5, False, "5.53e-05"),
        (0.00987, False, "0.00987"),
        (0.5, False, "0.500"),
        (0.0, False, "0.000"),
        (5.5e-5, True, "0.000"),
        (-0.0004, True, "0.000"),
        (0.4126, True, "0.413"),
    ],
)
def test_small_errors_keep_three_digits(value, higher, text):
    assert format_score(value, higher) == text


def test_small_errors_are_ranked_by_what_is_printed(run):
    records = []
    for method, values in {"a": (3e-5, 3e-5, 3e-5), "b": (2e-5, 2e-5, 2e-5), "c": (0.5, 0.5, 0.5)}.items():
        for seed, value in enumerate(values):
            one = run(method, "completion", seed, value)
            records.append(altered(one, lambda r: r.metrics.primary.update(higher_is_better=False)))
    assert [(row.method, row.rank) for row in build_rows(records)] == [("b", 1), ("a", 2), ("c", 3)]


def test_a_label_names_the_policy_and_not_all_its_options(run):
    depth = {"policy": "depth", "slope": 0.5, "measure": "effective", "minimum": 1}
    records = [run("lora", "cola", 0, 0.5, spec={"options": {"allocation": a}}) for a in ({}, depth)]
    records.append(run("lora", "cola", 0, 0.5, spec={"options": {"allocation": {**depth, "slope": 0.9}}}))
    assert sorted(row.label for row in build_rows(records)) == [
        "lora (allocation.policy=depth, allocation.slope=0.5)",
        "lora (allocation.policy=depth, allocation.slope=0.9)",
        "lora (allocation.policy=uniform)",
    ]


def test_rows_that_differ_by_an_option_which_older_runs_lack_have_labels_of_their_own(run):
    old, new = (run("lora", "cola", 0, 0.5) for _ in range(2))
    new.spec.options.method["novel"] = False
    assert sorted(row.label for row in build_rows([old, new])) == ["lora", "lora (novel=false)"]
