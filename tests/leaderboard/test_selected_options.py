"""Rows of runs whose options were selected: what was chosen is in the label, and the number of candidates counts."""

from __future__ import annotations

from records import build_rows

from bench.cli.show_run import text
from leaderboard.tables.build import build_tables

TRIALS = [
    {"lr": lr, "options": {"method.rank": rank}, "value": value, "run_id": f"{number:016x}", "state": state}
    for number, (lr, rank, value, state) in enumerate(
        [(1e-3, 8, 0.7, "done"), (3e-3, 8, 0.9, "done"), (2e-3, 4, 0.8, "done"), (9e-3, 16, None, "diverged")]
    )
]


def selected(run, task, seed, rank, *, space=(4, 8, 16), trials=20, lr=3e-3):
    options = {"method.rank": rank}
    selection = {"trials": TRIALS, "metric": "accuracy", "split": "holdout", "task": task, "chosen": lr}
    spec = {"lr": None, "select": [1e-3, 9e-3], "space": {"method.rank": [*space]}, "trials": trials}
    spec["options"] = {"method": {"rank": rank}}
    return run("lora", task, seed, 0.5, spec=spec, lr=lr, selection={**selection, "options": options})


def test_what_was_chosen_is_in_the_label_and_the_same_row(run):
    rows = build_rows([selected(run, "cola", 0, 8), selected(run, "cola", 1, 8), selected(run, "rte", 0, 4)])
    assert [(row.label, row.selected, row.trials, row.candidates) for row in rows] == [
        ("lora (rank=4 or 8 selected)", True, 4, 20)
    ]


def test_other_candidates_are_another_row(run):
    some = [selected(run, "cola", 0, 8), selected(run, "cola", 0, 8, space=(8, 16))]
    assert {row.label for row in build_rows(some)} == {"lora (rank=one of 4,8,16)", "lora (rank=one of 8,16)"}


def test_another_number_of_trials_is_a_caution(run):
    some = [selected(run, "cola", seed, 8) for seed in range(3)]
    rates = {"lr": None, "select": [1e-3, 3e-3, 9e-3]}
    some += [run(method, "cola", seed, 0.4, spec=rates) for method in ("full", "linear") for seed in range(3)]
    some += [run("bitfit", "cola", seed, 0.3) for seed in range(3)]
    cautions = {row.label: [caution.text for caution in row.cautions] for row in build_rows(some)}
    assert cautions == {
        "lora (rank=8 selected)": ["selected from 20 candidates, most rows from 3"],
        "full": [],
        "linear": [],
        "bitfit": ["nothing was selected, unlike in 3 other rows"],
    }


RATES = {"few": [1e-4, 3e-4, 1e-3], "many": [1e-3, 3e-3, 1e-2]}


def selected_from(run, **candidates):
    specs = {method: {"lr": None, "select": RATES[name]} for method, name in candidates.items()}
    return [run(method, "cola", seed, 0.5, spec=spec) for method, spec in specs.items() for seed in range(3)]


def test_other_candidate_rates_than_most_rows_are_a_caution(run):
    [table] = build_tables(selected_from(run, full="few", lora="many", linear="many"))
    assert {row.label: [caution.text for caution in row.cautions] for row in table.rows} == {
        "full": ["learning rate selected from 1e-4, 3e-4, 1e-3, most rows from 1e-3, 3e-3, 1e-2"],
        "lora": [],
        "linear": [],
    }
    assert not [note for note in table.notes if "candidates" in note]


def test_without_a_majority_a_note_lists_the_candidate_rates(run):
    [table] = build_tables(selected_from(run, full="few", lora="many"))
    assert not any(row.cautions for row in table.rows)
    note = "learning rates were selected from different candidates: 1e-4, 3e-4, 1e-3 (full); 1e-3, 3e-3, 1e-2 (lora)"
    assert note in table.notes
    [table] = build_tables(selected_from(run, full="few", lora="few"))
    assert not [note for note in table.notes if "candidates" in note]


def test_without_a_number_of_trials_the_combinations_count(run):
    [row] = build_rows([selected(run, "cola", 0, 8, trials=0)])
    assert row.candidates == 2 * 3


def test_show_lists_every_trial(run):
    shown = text(selected(run, "cola", 0, 8))
    assert "method.rank=8, chosen by accuracy on cola holdout" in shown
    lines = shown[shown.index("trials on cola holdout") :].splitlines()
    assert lines[0].endswith("20 suggested by optuna, 4 of them distinct")
    assert [line.split() for line in lines[1:6]] == [
        ["lr", "method.rank", "accuracy", "state", "run"],
        ["0.001", "8", "0.7000", "done", "0" * 16],
        ["0.003", "8", "0.9000", "done", f"{1:016x}"],
        ["0.002", "4", "0.8000", "done", f"{2:016x}"],
        ["0.009", "16", "–", "diverged", f"{3:016x}"],
    ]
