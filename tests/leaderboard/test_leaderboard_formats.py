"""LaTeX that compiles, Markdown that parses, CSV of one value a line, JSON: of plain and of hostile records."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from markdown_it import MarkdownIt
from records import altered

from leaderboard.render import csv_export, json_export, latex, markdown
from leaderboard.tables.build import build_tables
from leaderboard.tables.published import model_of, published_scores, with_published

HOSTILE = [
    "<script>alert(1)</script>", "a & b % c $ d # e _ f { g } ~ h ^ i \\ j", "\\input{/etc/passwd}", "\\write18{id}",
    "[1em] *", "中文字 Ελληνικά é ‖ΔW‖₂", "=cmd|' /C calc'!A0", "two\nlines\r\n\x1b[31m", "\u202egnp\ud800", "`\"'",
    "x" * 10_000, "",
]  # fmt: skip


@pytest.fixture
def grid(make_record):
    """Two methods, two tasks, three seeds; everything that is text in a record can be replaced."""

    def make(text=None):
        records = [
            make_record(
                spec={"method": method, "task": f"glue/{task}", "seed": seed},
                source={"data_hash": task},
                metrics={"primary": {"name": "accuracy", "value": value + 0.01 * seed}},
                warnings=[text] if text else [],
            )
            for (method, task), value in {
                ("full", "cola"): 0.5,
                ("full", "rte"): 0.9,
                (text or "lora", "cola"): 0.7,
                (text or "lora", "rte"): 0.8,
            }.items()
            for seed in range(3)
        ]
        if text:

            def say(record):
                record.task.note = record.source.revision = record.backbone.name = text
                record.metrics.primary.name = record.cost.device = text

            records = [altered(record, say) for record in records]
        return records

    return make


def compiled(source, folder):
    """The log of pdflatex on a document with these tables."""
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("pdflatex is not installed")
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
    (folder / "t.tex").write_text(head + source + "\\end{document}\n", encoding="utf-8")
    words = [program, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "t.pdf").stat().st_size > 5000
    return done.stdout


def test_latex_compiles_and_is_booktabs(grid, tmp_path):
    source = latex.render(build_tables(grid(), baseline="full"))
    assert [source.count(rule) for rule in ("\\toprule", "\\midrule", "\\bottomrule")] == [1, 1, 1]
    compiled(source, tmp_path)


def test_latex_of_hostile_text_compiles(grid, tmp_path):
    made = [table for text in HOSTILE for table in build_tables(grid(text), baseline="full")]
    source = latex.render(made)
    assert "\\input" not in source and "\\write18" not in source
    source.encode("ascii")
    compiled(source, tmp_path)


def test_latex_makes_the_best_bold_where_the_other_is_set_apart(grid):
    source = latex.render(build_tables(grid()))
    lines = {line.split(" & ")[0]: line for line in source.splitlines() if line.startswith(("full", "lora"))}
    assert lines["full"].split(" & ")[1].startswith("0.510")
    assert lines["lora"].split(" & ")[1].startswith("\\textbf{0.710}")
    assert lines["full"].split(" & ")[2].startswith("\\textbf{0.910}")
    assert lines["lora"].split(" & ")[2].startswith("0.810")


def test_latex_emphasises_no_score_of_fewer_than_three_seeds(grid):
    few = [r for r in grid() if not (r.spec.method == "lora" and r.spec.seed == 2)]
    lora = next(line for line in latex.render(build_tables(few)).splitlines() if line.startswith("lora"))
    assert "\\textbf" not in lora and "\\underline" not in lora


@pytest.mark.parametrize("text", [None, *HOSTILE])
def test_markdown_parses_as_tables_and_nothing_else(grid, text):
    made = build_tables(grid(text), baseline="full")
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown.render_tables(made, costs=True))
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 2 * len(made)
    cells = [kinds[a:b].count("td_open") for a, b in rows_of(kinds)]
    assert len(set(cells[: len(made[0].rows)])) == 1
    inline = {child.type for token in tokens if token.type == "inline" for child in token.children}
    assert inline <= {"text", "text_special", "softbreak", "strong_open", "strong_close"}, "no link, code or HTML"
    strong = [at for token in tokens for at in zip(token.children or (), (token.children or ())[1:], strict=False)]
    emphasised = [text.content for before, text in strong if before.type == "strong_open"]
    assert all(re.match(r"-?[0-9.]+", text) for text in emphasised), "nothing but a score is bold"
    assert "html_block" not in kinds


def rows_of(kinds):
    starts = [i for i, kind in enumerate(kinds) if kind == "tr_open"]
    return [(i, kinds.index("tr_close", i)) for i in starts if "td_open" in kinds[i : kinds.index("tr_close", i)]]


@pytest.mark.parametrize("text", [None, *HOSTILE])
def test_csv_has_one_value_a_line(grid, text):
    records = grid(text)
    lines = list(csv.DictReader(io.StringIO(csv_export.render(build_tables(records, baseline="full")))))
    assert {tuple(line) for line in lines} == {csv_export.FIELDS}
    assert not [v for line in lines for k, v in line.items() if k != "value" and v.startswith(("=", "+", "-", "@"))]
    scores = {line["run_id"]: float(line["value"]) for line in lines if line["quantity"] == "score"}
    assert scores == {r.run_id: r.metrics.primary.value for r in records}
    named = [tuple(v for k, v in line.items() if k != "value") for line in lines]
    assert len(set(named)) == len(named), "no quantity appears twice"
    [average] = [line for line in lines if line["quantity"] == "average" and line["row"] == "full"]
    assert float(average["value"]) == pytest.approx(0.71)
    trained = [line for line in lines if line["quantity"] == "trained_parameters"]
    assert [float(line["value"]) for line in trained] == [68_000.0, 68_000.0]


@pytest.mark.parametrize("text", [None, *HOSTILE])
def test_json_links_every_cell_to_its_runs(grid, text):
    records = grid(text)
    made = json.loads(json_export.dump(json_export.leaderboard_json(build_tables(records, baseline="full"), records)))
    cells = [cell for table in made["tables"] for row in table["rows"] for cell in row["cells"]]
    ids = [run_id for cell in cells for _, _, run_id in cell["runs"]]
    assert sorted(ids) == sorted(made["runs"]) == sorted(r.run_id for r in records)
    for run_id, run in made["runs"].items():
        row = made["tables"][run["table"]]["rows"][run["row"]]
        assert run_id in [found for cell in row["cells"] for *_, found in cell["runs"]]
        assert run["command"] == "bench run"


def test_json_has_failed_runs_and_means_of_neighbouring_losses(make_record):
    curve = [{"step": step, "loss": 1 / (1 + step)} for step in range(1000)]
    series = {"of": "updates", "layers": 2, "steps": [0, 5, 9], "effective": [None, 1.5, 2.0]}
    error = {"what": "it broke", "known": "", "todo": ""}
    records = [
        make_record(curve=curve, spectra={"series": [series], "layers": []}),
        make_record(spec={"seed": 1}, state="failed", error=error, metrics=None, cost=None),
    ]
    made = json_export.leaderboard_json(build_tables(records), records)
    good, bad = (made["runs"][r.run_id] for r in records)
    assert len(good["curve"]) == 30 and good["curve"][-1][0] == 999
    losses = np.array([point["loss"] for point in curve])
    firsts = np.split(losses, [step + 1 for step, _ in good["curve"][:-1]])
    assert [value for _, value in good["curve"]] == pytest.approx([part.mean() for part in firsts], rel=1e-4)
    assert good["rank_curve"] == [[5, 1.5], [9, 2.0]]
    assert (bad["state"], bad["error"], bad["value"]) == ("failed", "it broke", None)
    assert made["tables"][0]["rows"][0]["states"] == {"done": 1, "failed": 1}


def test_json_has_evaluations_of_the_primary_metric(make_record):
    evaluations = [{"step": step, "metrics": {"dev": {"matthews": step / 10, "other": 9.0}}} for step in (1, 2)]
    record = make_record(evaluations=evaluations)
    assert json_export.leaderboard_json(build_tables([record]), [record])["runs"][record.run_id]["evaluations"] == [
        [1, 0.1],
        [2, 0.2],
    ]


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (-1.25, "$-$1.250"),
        (-0.25, "$-$0.250"),
        (5.534e-5, r"5.53$\cdot10^{-5}$"),
        (0.5, "0.500"),
    ],
)
def test_latex_numbers_have_a_minus_and_powers_of_ten(make_record, value, printed):
    loss = {"primary": {"name": "loss", "value": value, "higher_is_better": False}}
    records = [make_record(spec={"seed": seed}, metrics=loss) for seed in range(3)]
    [line] = [line for line in latex.render(build_tables(records)).splitlines() if line.startswith("lora &")]
    shown = line.split(" & ")[1]
    assert printed in shown and "e-" not in line and " -" not in line
    assert r"$\pm$\,0" in shown


def on(make_record, backbone, task="glue/cola", **spec):
    return make_record(spec={"task": task, **spec}, backbone={"name": backbone})


@pytest.mark.parametrize(
    ("backbone", "model"),
    [
        ("microsoft/deberta-v3-base", "DeBERTaV3-base"),
        ("FacebookAI/roberta-base", "RoBERTa-base"),
        ("models/roberta-large/", "RoBERTa-large"),
        ("google-bert/bert-base-cased", "BERT-base-cased"),
        ("bert-base-uncased", None),
        ("minilm", None),
    ],
)
def test_published_scores_are_of_the_same_backbone(make_record, backbone, model):
    assert model_of(backbone) == model
    record = on(make_record, backbone)
    [table] = with_published(build_tables([record]), [record])
    expected = {f.source for f in published_scores() if f.model == model and f.task == "cola" and not f.train_samples}
    assert {row.published.source for row in table.published} == expected


def test_published_scores_are_cited_and_have_no_rank(make_record):
    records = [
        on(make_record, "microsoft/deberta-v3-base", f"glue/{t}", seed=s) for t in ("cola", "mrpc") for s in range(3)
    ]
    records = [altered(record, lambda r: r.source.update(data_hash=r.spec.task)) for record in records]
    made = with_published(build_tables(records), records)
    [table] = made
    assert [row.label for row in table.rows] == ["lora"] and all(row.rank is None for row in table.published)
    adalora = next(row for row in table.published if row.label == "adalora (1.27M)")
    assert [cell.mean for cell in adalora.cells] == [0.7145, 0.9069]
    assert adalora.trainable == 1.27e6 and adalora.average is None
    text = markdown.render_tables(made)
    assert text.count("*(published)*") == len(table.published) == 10
    assert "arXiv 2303.10512); dev, mean of five runs; other metrics: mrpc accuracy" in text
    assert "published" in latex.render(made) and "\\midrule\n\\multicolumn" in latex.render(made)
    lines = list(csv.DictReader(io.StringIO(csv_export.render(made))))
    assert {line["published"] for line in lines if line["row"] == "adalora (1.27M)"} == {"AdaLoRA paper, table 1"}
    marked = [row for row in json_export.leaderboard_json(made, records)["tables"][0]["rows"] if row["published"]]
    assert len(marked) == 10 and marked[0]["published"]["arxiv"] == "2303.10512"


def test_published_few_shot_scores_need_the_same_number_of_examples(make_record):
    def labels(samples):
        record = on(make_record, "bert-base-cased", "glue/stsb", train_samples=samples)
        [table] = with_published(build_tables([record]), [record])
        return [row.label for row in table.published]

    assert labels(64) == ["lora (A ~ N(0, 1), no scale, rank=8)", "deeplora (rank=8)"]
    assert len(labels(16)) == 10
    assert labels(None) == labels(17) == []


def test_a_backbone_that_a_run_trained_has_no_published_scores(make_record):
    parent = {
        "run_id": "0" * 16,
        "group_id": "0" * 16,
        "method": "mlm",
        "task": "corpus",
        "backbone": "x",
        "parent": None,
    }
    record = make_record(backbone={"name": "roberta-base", "parent": parent})
    assert with_published(build_tables([record]), [record])[0].published == ()


def test_published_scores_are_fractions_with_a_source():
    for score in published_scores():
        assert 0 < score.value < 1 and re.fullmatch(r"\d{4}\.\d{5}", score.arxiv) and score.source
    assert len(published_scores()) == 126
