"""Which rows are equal to the best and which are at chance, from records and the outputs that their runs kept."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs
from records import altered
from scipy import stats

from bench.benchmarks.intervals import best_is_lost, told_apart
from bench.cli import main
from bench.records import record as records_io
from bench.records.files import hashes
from bench.records.predictions import FILE, Predictions, write
from leaderboard.compare.comparison import compare
from leaderboard.compare.selection import select_sides
from leaderboard.render import json_export, latex, markdown
from leaderboard.tables import standing
from leaderboard.tables.build import build_tables
from leaderboard.tables.examples import Examples
from leaderboard.tables.intervals import Noise, interval, widening

N = 400
LABELS = np.arange(N) % 10 >= 3  # the largest class has 70 %


def solved(share, *, seed=0, of=0):
    """Which examples a run solves: for all `of` the same ones but for a few that depend on the seed."""
    ease = np.random.default_rng([7, of]).random(N)
    return ease + np.random.default_rng([9, of, seed]).normal(0, 0.01, N) < share


@pytest.fixture
def folder(run, tmp_path):
    """`folder({"full": 0.9})`: runs of three seeds with this accuracy, or with these examples solved, and outputs."""

    def make(methods, *, seeds=3, task="rte", n=N, keep=True):
        made = []
        for method, given in methods.items():
            for seed in range(seeds):
                right = solved(given, seed=seed, of=len(method)) if isinstance(given, float) else given
                labels = LABELS.astype(int)
                outputs = np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)]
                one = altered(
                    run(method, task, seed, float(right.mean())),
                    lambda r: (
                        r.metrics.primary.update(n=N),
                        r.source.evaluation_examples.update(dev=N),
                        r.metrics.update(majority={"dev": 0.7}),
                    ),
                )
                where = records_io.folder(tmp_path, one.run_id)
                if keep:
                    write(where / FILE, {"dev": Predictions(np.arange(N), labels, outputs)})
                    one = structs.replace(one, files=hashes(where, [FILE]))
                records_io.write(one, where)
                made.append(one)
        return made

    return make


def table_of(records, path=None):
    [table] = build_tables(records, baseline="full", examples=Examples(path))
    return table, {row.label: row for row in table.rows}


def test_rows_within_noise_of_the_best_share_rank_1_and_are_bold(folder, tmp_path):
    records = folder({"full": 0.9, "bitfit": 0.89, "linear": 0.75})
    table, rows = table_of(records, tmp_path)
    assert {label: row.rank for label, row in rows.items()} == {"full": 1, "bitfit": 1, "linear": 3}
    assert {label: row.leads for label, row in rows.items()} == {"full": (True,), "bitfit": (True,), "linear": (False,)}
    assert "intervals are over seeds and examples" in table.notes
    shown = {
        line.split("|")[2].split()[0]: line for line in markdown.render_tables([table]).splitlines() if " ± " in line
    }
    assert "**0.898" in shown["full"] and "**" in shown["bitfit"] and "**" not in shown["linear"]
    source = latex.render([table])
    assert source.count(r"\textbf") == 2 and "within noise" in source
    cells = {
        row["label"]: row["cells"][0] for row in json_export.leaderboard_json([table], records)["tables"][0]["rows"]
    }
    assert [cells[label]["leads"] for label in ("full", "bitfit", "linear")] == [True, True, False]
    assert cells["linear"]["difference"]["examples"] == N


def test_a_row_that_varies_too_much_to_be_set_apart_is_not_among_the_best_but_says_so(run):
    scores = {"full": (0.9, 0.91, 0.89), "lora": (0.8, 0.81, 0.79), "linear": (0.85, 0.1, 0.86)}
    records = [run(method, "rte", seed, value) for method, of in scores.items() for seed, value in enumerate(of)]
    _, rows = table_of(records)
    assert {label: row.rank for label, row in rows.items()} == {"full": 1, "lora": 2, "linear": 3}
    assert [row.leads[0] for row in rows.values()] == [True, False, False]
    assert [caution.text for caution in rows["linear"].cautions if caution.code == "noise"] == [
        "varies too much to be set apart from the best on rte"
    ]
    assert not rows["lora"].cautions


def test_where_no_row_is_set_apart_nothing_is_bold(folder, tmp_path):
    table, rows = table_of(folder({"full": 0.9, "bitfit": 0.89}), tmp_path)
    assert [row.rank for row in rows.values()] == [1, 1]
    assert not any(row.leads[0] or row.average_leads for row in rows.values())
    assert "**" not in markdown.render_tables([table]) and r"\textbf" not in latex.render([table])


def test_examples_widen_the_interval_of_seeds_that_agree(folder, tmp_path):
    records = folder({"full": 0.9, "lora": 0.87})
    (_, alone), (_, both) = table_of(records), table_of(records, tmp_path)
    widths = [rows["lora"].difference.high - rows["lora"].difference.low for rows in (alone, both)]
    assert both["lora"].difference.mean == alone["lora"].difference.mean
    assert widths[1] > 1.5 * widths[0]
    a, b = (np.mean([solved(share, seed=seed, of=4) for seed in range(3)], 0) for share in (0.9, 0.87))
    error = (b - a).std() / N**0.5  # the seeds differ so little that the examples are nearly all of it
    assert widths[1] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_without_outputs_a_note_says_that_intervals_are_over_seeds_alone(folder, tmp_path):
    records = folder({"full": 0.9, "lora": 0.8}, keep=False)
    table, _ = table_of(records, tmp_path)
    [note] = [note for note in table.notes if "intervals" in note]
    assert "over seeds alone" in note and FILE in note
    some = folder({"full": 0.9})
    table, rows = table_of([*some, *(one for one in records if one.spec.method == "lora")], tmp_path)
    assert "3 of 6 runs have outputs" in " ".join(table.notes)
    assert rows["lora"].difference.examples == 0


def test_of_too_many_runs_no_outputs_are_read(folder, tmp_path, monkeypatch):
    records = folder({"full": 0.9, "lora": 0.8})
    monkeypatch.setattr(standing, "MOST_RUNS", 5)
    examples = Examples(tmp_path)
    monkeypatch.setattr(Examples, "of", lambda self, run: pytest.fail("read") if self is examples else None)
    [table] = build_tables(records, examples=examples)
    assert "5 runs at most; choose some with --tasks" in " ".join(table.notes)


def test_a_row_that_ignores_the_input_is_marked_and_its_ranks_are_in_parentheses(folder, tmp_path):
    majority = LABELS.copy()
    table, rows = table_of(folder({"full": 0.9, "lora": majority, "linear": 0.72}), tmp_path)
    assert {label: row.chance for label, row in rows.items()} == {"full": (None,), "lora": (0.7,), "linear": (0.7,)}
    assert rows["lora"].learned_nothing and not rows["full"].learned_nothing
    text = {caution.code: caution.text for caution in rows["lora"].cautions}["chance"]
    assert text == "not above the score of ignoring the input on rte (0.700); its ranks of ΔW say nothing"
    lines = {
        line.split("|")[2].split()[0]: line for line in markdown.render_tables([table]).splitlines() if " ± " in line
    }
    assert "(2.5 / 8)" in lines["lora"] and " 2.5 / 8" in lines["full"]
    assert "(2.5 / 8)" in latex.render([table])


@pytest.mark.parametrize("value", [0.72, 0.78])
def test_records_alone_say_what_is_at_chance_too(folder, value):
    _, rows = table_of(folder({"full": solved(value)}, keep=False))
    assert rows["full"].learned_nothing == (stats.binomtest(round(value * N), N, 0.7).pvalue > 0.05)


def test_a_correlation_at_zero_is_chance(run):
    some = [run("full", "cola", seed, value) for seed, value in enumerate((0.02, -0.01, 0.03))]
    some += [run("lora", "cola", seed, value) for seed, value in enumerate((0.5, 0.52, 0.48))]
    _, rows = table_of(some)
    assert (rows["full"].chance, rows["lora"].chance) == ((0.0,), (None,))


def test_a_changed_file_is_named_and_its_run_counts_as_one_without(folder, tmp_path, capsys):
    records = folder({"full": 0.9, "lora": 0.8})
    path = tmp_path / records[0].run_id / FILE
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert main(["leaderboard", "--runs", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert f"{path} was changed" in shown.err and "5 of 6 runs have outputs" in shown.out
    from_index = structs.replace(records[0], files={})
    assert (examples := Examples(tmp_path)).of(from_index) is None and "was changed" in examples.problems[0].what
    write(path, {"dev": Predictions(np.arange(N), LABELS.astype(int), np.eye(2, dtype=np.float32)[LABELS.astype(int)])})
    wrong = structs.replace(records[0], files=hashes(path.parent, [FILE]))
    examples = Examples(tmp_path)
    assert examples.of(wrong) is None
    assert "its outputs score 1.0000, the record has" in examples.problems[0].known


@pytest.mark.parametrize("label", [-1, 5])
def test_labels_that_no_class_has_break_nothing(folder, tmp_path, label):
    [one] = folder({"full": np.zeros(N, dtype=bool)}, seeds=1)
    labels = np.full(N, label)
    write(
        tmp_path / one.run_id / FILE,
        {"dev": Predictions(np.arange(N), labels, np.eye(2, dtype=np.float32)[labels % 2])},
    )
    examples, listed = Examples(tmp_path), structs.replace(one, files=hashes(tmp_path / one.run_id, [FILE]))
    assert examples.of(listed).score == 0 == examples.chance(listed).score and not examples.problems


def test_compare_is_paired_over_seeds_and_examples(folder, tmp_path):
    records = folder({"full": 0.9, "lora": 0.87})
    examples = Examples(tmp_path)
    [score] = compare(*select_sides(records, "full", "lora"), examples).scores
    [table] = build_tables(records, baseline="full", examples=examples)
    [row] = [row for row in table.rows if row.label == "lora"]
    assert score.difference == row.difference and score.difference.examples == N
    assert (score.verdict, score.sure) == ("worse", True)


def test_one_seed_has_an_interval_over_examples_and_no_verdict(folder, tmp_path, capsys):
    records = folder({"full": 0.9, "lora": 0.8}, seeds=1)
    [score] = compare(*select_sides(records, "full", "lora"), Examples(tmp_path)).scores
    a, b = (solved(share, of=4).astype(float) for share in (0.9, 0.8))
    expected = stats.norm.interval(0.95, (b - a).mean(), (b - a).std() / N**0.5)
    assert (score.difference.low, score.difference.high) == pytest.approx(expected, abs=0.004)
    assert score.difference.high < 0 and not score.sure
    assert main(["compare", "full", "lora", "--runs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "worse? | 1 seed, 400 examples" in shown and "not about other seeds" in shown


def test_an_interval_without_noise_is_students_t_and_without_seeds_the_examples():
    values = [0.1, 0.3, 0.4]
    assert interval(values) == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval()))
    assert interval([0.5]) is None
    assert interval([0.5], Noise(0.01, 0.01)) == pytest.approx(stats.t.interval(0.95, 200, 0.5, 0.1))
    same = interval([0.5, 0.5, 0.5], Noise(0.01, 0.01))
    assert same == pytest.approx(stats.t.interval(0.95, 200, 0.5, 0.1))


def test_intervals_of_several_comparisons_are_wider_by_bonferronis_normal():
    assert widening(1) == 1
    assert widening(7) == pytest.approx(stats.norm.ppf(1 - 0.025 / 7) / stats.norm.ppf(0.975))


SETTING = {"seeds": 3, "shift": 0.05, "repeats": 400}


def test_equal_methods_are_told_apart_in_five_percent_of_comparisons():
    """Of 350 examples and three seeds. Seeds alone, the control, say it more often. Eight points are seen."""
    assert 0.03 <= told_apart(np.random.default_rng(0), 0, **SETTING) <= 0.07
    assert told_apart(np.random.default_rng(0), 0, **{**SETTING, "seeds": 5}, examples=False) > 0.08
    assert told_apart(np.random.default_rng(0), 0.08, **{**SETTING, "repeats": 100}) > 0.7


def test_the_row_that_is_truly_best_stays_with_the_best():
    assert best_is_lost(np.random.default_rng(0), 8, seeds=3, shift=0.05, repeats=60)[0] <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1])
def test_equal_methods_are_told_apart_in_five_percent_at_any_number_of_seeds(seeds, shift):
    assert 0.025 <= told_apart(np.random.default_rng(1), 0, seeds=seeds, shift=shift, repeats=3000) <= 0.07
