"""The best evaluation during training beside the last score, in every format; it decides nothing."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from markdown_it import MarkdownIt
from records import altered

from bench.cli import main
from bench.records import record as records_io
from leaderboard.render import csv_export, json_export, latex, markdown
from leaderboard.tables.build import BEST, build_tables

SEEDS, EVALUATIONS = 3, 5
TASKS = ("cola", "rte")


@pytest.fixture
def courses(run):
    """Records of `full` and `lora` with courses, and of `linear` without; the courses (method, task, seed, evaluation).

    The last evaluation is the score.
    """
    draw = np.random.default_rng(0)
    values = draw.uniform(0.2, 0.9, (2, len(TASKS), SEEDS, EVALUATIONS))

    def evaluations(task, course):
        name = "matthews" if task == "cola" else "accuracy"
        return [{"step": 30 * i, "metrics": {"dev": {name: value}}} for i, value in enumerate(course.tolist(), 1)]

    records = [
        run(method, task, seed, values[i, j, seed, -1].item(), evaluations=evaluations(task, values[i, j, seed]))
        for i, method in enumerate(("full", "lora"))
        for j, task in enumerate(TASKS)
        for seed in range(SEEDS)
    ]
    plain = [run("linear", task, seed, 0.1) for task in TASKS for seed in range(SEEDS)]
    return [*records, *plain], values


def by_label(table):
    return {row.label: row for row in table.rows}


def test_statistics_of_the_best_are_numpys(courses):
    records, values = courses
    [table] = build_tables(records, best=True)
    rows, best = by_label(table), values.max(-1)
    for i, method in enumerate(("full", "lora")):
        assert [cell.mean for cell in rows[method].best] == pytest.approx(best[i].mean(-1))
        assert [cell.sd for cell in rows[method].best] == pytest.approx(best[i].std(-1, ddof=1))
        assert rows[method].best_average.mean == pytest.approx(best[i].mean())
        assert rows[method].best_average.sd == pytest.approx(best[i].mean(0).std(ddof=1))
    assert rows["linear"].best == (None, None) and rows["linear"].best_average is None


def test_the_best_changes_nothing_else(courses):
    """Order, ranks, averages and differences are those of the last scores, whether it is asked for or not."""
    records, values = courses
    [table], [asked] = build_tables(records, baseline="full"), build_tables(records, baseline="full", best=True)
    assert replace(asked, best=False, notes=table.notes) == table
    assert asked.notes[-1] == BEST and not table.best
    last = values[..., -1].mean((1, 2))
    assert [row.label for row in table.rows][:2] == (["full", "lora"] if last[0] > last[1] else ["lora", "full"])
    assert [by_label(table)[m].average.mean for m in ("full", "lora")] == pytest.approx(last)


def test_a_cell_needs_the_course_of_every_seed(courses):
    """Else last and best would be of different seeds."""
    records, _ = courses
    without = next(r for r in records if (r.spec.method, r.spec.task, r.spec.seed) == ("full", "glue/rte", 0))
    some = [altered(r, lambda r: r.update(evaluations=[])) if r is without else r for r in records]
    row = by_label(build_tables(some, best=True)[0])["full"]
    assert row.best[0] and row.best[1] is None and row.best_average is None
    assert row.cells[1].n == SEEDS


def test_markdown_has_the_best_beside_the_last_and_says_how_it_was_chosen(courses):
    records, values = courses
    text = markdown.render_tables(build_tables(records, best=True))
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    cells = [
        token.content
        for token, before in zip(tokens[1:], tokens, strict=False)
        if before.type in ("th_open", "td_open")
    ]
    head = cells[: cells.index("‖ΔW‖₂")]
    assert head[2:8] == [
        *(
            "cola matthews ↑",
            "best on dev",
            "rte accuracy ↑",
            "best on dev",
            "average (2 tasks)",
            "average of the best",
        ),
    ]
    line = next(line for line in text.splitlines() if "| lora" in line)
    shown = [cell.strip() for cell in line.split("|")][3:9]
    best, last = values[1].max(-1), values[1, ..., -1]
    means = [last[0].mean(), best[0].mean(), last[1].mean(), best[1].mean(), last.mean(), best.mean()]
    assert [cell.strip("*").split(" ±")[0] for cell in shown] == [f"{mean:.3f}" for mean in means]
    linear = next(line for line in text.splitlines() if "| linear" in line)
    assert [cell.strip() for cell in linear.split("|")][4:9:2] == ["–", "–", "–"]
    assert "chosen on the very examples that it is scored on" in text
    assert "best on dev" not in markdown.render_tables(build_tables(records))


def test_latex_has_them_beside_the_last(courses):
    records, values = courses
    text = latex.render(build_tables(records, baseline="full", best=True))
    lora = next(line for line in text.splitlines() if line.startswith("lora &")).split(" & ")
    assert lora[2].startswith(f"{values[1, 0].max(-1).mean():.3f} ")
    linear = next(line for line in text.splitlines() if line.startswith("linear &")).split(" & ")
    assert linear[2] == linear[4] == linear[6] == "--"
    assert "chosen on the very examples" in text
    heads = next(line for line in text.splitlines() if line.startswith("method &")).removesuffix(r" \\")
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    assert len(columns) == len(lora) == len(linear) == heads.count(" & ") + 1


def test_latex_emphasises_no_best_on_dev(courses):
    """Even where it is the last score, which is bold."""
    records = [altered(r, lambda r: r.update(evaluations=r.evaluations[-1:])) for r in courses[0] if r.evaluations]
    lines = latex.render(build_tables(records, best=True)).splitlines()
    rows = [line.split(" & ") for line in lines if line.startswith(("full &", "lora &"))]
    assert any(cell.startswith("\\textbf") for line in rows for cell in line[1:7:2])
    assert all(cell[0] == "0" for line in rows for cell in line[2:7:2])


def test_csv_has_every_best_with_its_step(courses):
    records, values = courses
    lines = [*csv.DictReader(io.StringIO(csv_export.render(build_tables(records, best=True))))]
    found = {(x["method"], x["task"], x["seed"], x["quantity"]): x["value"] for x in lines if "best" in x["quantity"]}
    for i, method in enumerate(("full", "lora")):
        for j, task in enumerate(TASKS):
            for seed in range(SEEDS):
                course = values[i, j, seed]
                of_run = method, f"glue/{task}", str(seed)
                assert float(found[*of_run, "best_chosen_on_dev"]) == course.max()
                assert int(found[*of_run, "best_chosen_on_dev_step"]) == 30 * (course.argmax() + 1)
            mean = float(found[method, f"glue/{task}", "", "best_chosen_on_dev_mean"])
            assert mean == pytest.approx(values[i, j].max(-1).mean())
        assert float(found[method, "", "", "best_chosen_on_dev_average"]) == pytest.approx(values[i].max(-1).mean())
    assert not [key for key in found if key[0] == "linear"]
    assert "best" not in csv_export.render(build_tables(records))


def test_json_has_them_where_asked(courses):
    records, values = courses
    made, plain = (
        json.loads(json_export.dump(json_export.leaderboard_json(build_tables(records, best=best), records)))["tables"][
            0
        ]
        for best in (True, False)
    )
    rows = {row["label"]: row for row in made["rows"]}
    assert [cell["best"]["mean"] for cell in rows["lora"]["cells"]] == pytest.approx(values[1].max(-1).mean(-1))
    assert rows["lora"]["best_average"]["mean"] == pytest.approx(values[1].max(-1).mean())
    assert not [cell for cell in rows["linear"]["cells"] if "best" in cell] and "best_average" not in rows["linear"]
    assert (made["best"], plain["best"]) == (True, False)
    assert not [cell for row in plain["rows"] for cell in row["cells"] if "best" in cell]
    assert BEST in made["notes"]


def test_the_command_shows_them_and_says_if_there_are_none(courses, tmp_path, capsys):
    for record in courses[0]:
        records_io.write(record, records_io.folder(tmp_path, record.run_id))
    assert main(["leaderboard", "--runs", str(tmp_path), "--best"]) == 0
    shown = capsys.readouterr()
    assert "best on dev" in shown.out and "note:" not in shown.err
    assert main(["leaderboard", "--runs", str(tmp_path), "--best", "--methods", "linear"]) == 0
    shown = capsys.readouterr()
    assert "no run was evaluated during training" in shown.err and "best on dev" in shown.out
    assert main(["leaderboard", "--runs", str(tmp_path)]) == 0
    assert "best on dev" not in capsys.readouterr().out
