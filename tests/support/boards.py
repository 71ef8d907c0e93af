"""Boards to show, drawn from a seed: the JSON values that the page is given, small, large and hostile."""

from __future__ import annotations

import math
import random
from statistics import fmean, stdev
from typing import Any

METHODS = ("lora", "full", "bitfit", "adalora", "deeplora", "linear", "adapter", "galore")
TASKS = (("cola", "matthews"), ("mrpc", "accuracy+f1"), ("rte", "accuracy"), ("stsb", "spearman"))
SCRIPT = "<script>window.ran=1</script>"
IMAGE = "<img src=x onerror=window.ran=1>"
HOSTILE = f"{SCRIPT}{IMAGE}</script><script>window.ran=1</script>&amp;<b>$x_1$ %{{x}} \u202e\x07\n@@data@@ 漢"


def stat(values: list[float]) -> dict[str, Any]:
    return {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None, "n": len(values)}


def lead(rows: list[dict[str, Any]]) -> None:
    """The two best rows of each column, and of the average, lead it; the first row learned nothing."""
    for c in range(len(rows[0]["cells"])):
        cells = sorted((row["cells"][c] for row in rows if row["cells"][c]), key=lambda cell: -cell["mean"])
        for place, cell in enumerate(cells):
            cell["leads"] = place < 2 < len(cells)
    for row in rows:
        row["average_leads"] = False
    rows[0]["learned_nothing"] = True


class Maker:
    """A board of tables over (backbone, source), each with rows of every method at some ranks."""

    def __init__(self, seed: int, *, seeds: int = 3) -> None:
        self.random, self.seeds = random.Random(seed), seeds
        self.board: dict[str, Any] = {
            "title": "lowrank-bench leaderboard",
            "problems": ["runs/0123456789abcdef/record.json: schema 7, this is 1"],
            "trials": 12,
            "notes": ["Cells of one method and seed share their start."],
            "tables": [],
            "runs": {},
        }

    def table(self, backbone: str = "minilm (22.7 M)", *, rows: int = 9, tasks: int = 4, up: bool = True) -> None:
        columns = [
            {
                "task": task,
                "task_id": f"glue/{task}",
                "metric": metric if up else "loss",
                "higher_is_better": up,
                "data": "",
                "note": "dev has 277 examples" if task == "rte" else "",
            }
            for task, metric in TASKS[:tasks]
        ]
        source, budget = "directory data (CoLA, MRPC, RTE, STS-B)", "100 steps, batch 16"
        at = len(self.board["tables"])
        made = [self.row(at, j, columns) for j in range(rows)]
        lead(made)
        made.sort(key=lambda row: -row["average"]["mean"] if row["average"] else 1)
        for rank, row in enumerate(made, 1):
            row["rank"] = rank if row["average"] else None
        order = {row.pop("was"): j for j, row in enumerate(made)}
        for run in self.board["runs"].values():
            if run["table"] == at:
                run["row"] = order[run["row"]]
        base = next((row for row in made if row["label"] == "full"), None)
        self.board["tables"].append(
            {
                "suite": "glue",
                "heading": f"glue · {backbone} · {source} · {budget} · dev",
                "backbone": backbone,
                "source": source,
                "budget": budget,
                "split": "dev",
                "baseline": "full" if base else None,
                "columns": columns,
                "rows": made,
            }
        )

    def row(self, at: int, j: int, columns: list[dict[str, Any]]) -> dict[str, Any]:
        draw, method, rank = self.random, METHODS[j % len(METHODS)], 2 ** (1 + j // len(METHODS) % 5)
        extra = j // (5 * len(METHODS))
        label = method if j < len(METHODS) and method != "lora" else f"{method} (rank={rank}" + f", alpha={extra})" * 1
        label = label if "(" not in label or extra else f"{method} (rank={rank})"
        trainable = 22_700_000 if method == "full" else draw.uniform(0.7, 1.4) * 3000 * rank * (1 + j % len(METHODS))
        cells, missing = [], j == 6
        for c, column in enumerate(columns):
            level = draw.uniform(0.45, 0.7) + 0.02 * math.log(trainable)
            runs = [
                self.run(at, j, column["task_id"], seed, draw.gauss(level, 0.01), method, rank)
                for seed in range(self.seeds)
            ]
            if missing and c == 1:
                for _, _, run_id in runs:
                    self.board["runs"][run_id] |= {"state": "oom", "value": None, "error": "out of memory\nasked 2 GiB"}
                cells.append(None)
                continue
            mean = stat([value for _, value, _ in runs])
            cells.append(mean | {"metric": column["metric"], "runs": runs, "difference": self.difference()})
        there = [cell for cell in cells if cell]
        average = None if missing else stat([fmean(c["runs"][s][1] for c in there) for s in range(self.seeds)])
        thin = method not in ("linear", "bitfit")
        layers = [
            [
                f"encoder.layer.{i}.attention.self.{kind}",
                rank,
                draw.uniform(1, rank),
                draw.uniform(1, 1 + rank / 2),
                0.3,
            ]
            for i in range(6)
            for kind in ("query", "value")
        ]
        states = {"done": self.seeds * len(there), "failed": 0, "oom": self.seeds if missing else 0, "diverged": 0}
        return {
            "was": j,
            "label": label,
            "method": method,
            "settings": {"method.rank": str(rank), "optim.name": "adamw"},
            "published": None,
            "rank": None,
            "average": average,
            "complete": [len(there), len(columns)],
            "iqm": average and average["mean"] + 0.003,
            "average_rank": draw.uniform(1, 9),
            "difference": self.difference() if average and method != "full" else None,
            "cells": cells,
            "trainable": trainable,
            "share": trainable / 22_800_000,
            "stored_bytes": 4 * trainable,
            "train_s": draw.uniform(20, 300),
            "peak_memory_bytes": draw.uniform(3e8, 2e9),
            "nominal": rank if thin else None,
            "effective": fmean(layer[2] for layer in layers) if thin else None,
            "stable": fmean(layer[3] for layer in layers) if thin else None,
            "norm": 0.3 if thin else None,
            "layers": layers if thin else [],
            "lrs": [1e-4, 1e-3],
            "selected": True,
            "trials": 4,
            "states": states,
            "devices": ["cpu"],
            "cautions": [{"code": "seeds", "text": "fewer than three seeds"}] if j == 4 else [],
            "notes": ["1 run: ΔW barely moved in 2 of 12 layers"] if j == 3 else [],
        }

    def difference(self) -> dict[str, Any]:
        mean = self.random.uniform(-0.05, 0.02)
        return {"mean": mean, "low": mean - 0.01, "high": mean + 0.012, "iqm": mean, "seeds": 3, "tasks": 4}

    def run(self, at: int, j: int, task: str, seed: int, value: float, method: str, rank: int) -> list[Any]:
        run_id = f"{len(self.board['runs']):016x}"
        self.board["runs"][run_id] = {
            "table": at,
            "row": j,
            "task": task,
            "seed": seed,
            "state": "done",
            "value": value,
            "lr": 1e-3,
            "command": f"bench run --method {method} --task {task} --seeds {seed} --set method.rank={rank}",
            "error": None,
            "warnings": ["ΔW barely moved"] if j == 3 else [],
            "created": "2026-11-27T10:00:00+00:00",
            "git": "bb0c437aa0",
            "device": "cpu",
            "train_s": 30.0,
            "curve": [[10 * i, 0.7 * math.exp(-i / 20) + self.random.uniform(0, 0.1)] for i in range(60)],
            "rank_curve": [[20 * i, 1 + i * rank / 8] for i in range(6)],
            "evaluations": [],
        }
        return [seed, value, run_id]


def small() -> dict[str, Any]:
    """Two tables of nine rows and four tasks; in the first, a published row."""
    maker = Maker(0)
    maker.table()
    maker.table("bert-base (109.5 M)", rows=5, tasks=2)
    rows = maker.board["tables"][0]["rows"]
    cells = [
        {"mean": 0.6, "sd": None, "n": None, "metric": "matthews", "runs": [], "difference": None},
        None,
        None,
        None,
    ]
    with_courses(maker.board["tables"][1], maker.board["runs"])
    quoted = {"source": "Hu et al. 2021, table 2", "arxiv": "2106.09685", "note": "head left out"}
    rows.append({"label": "LoRA", "method": "lora", "published": quoted, "cells": cells, "trainable": 300_000})
    return maker.board


def with_courses(table: dict[str, Any], runs: dict[str, Any]) -> None:
    """Give every row but the last the course of each run, and the best of it beside the scores."""
    table["best"] = True
    for row in table["rows"][:-1]:
        for cell in row["cells"]:
            for _, value, run_id in cell["runs"]:
                runs[run_id]["evaluations"] = [[50, value - 0.1], [100, value + 0.02], [150, value]]
            cell["best"] = cell | {"mean": cell["mean"] + 0.02}
        row["best_average"] = row["average"] | {"mean": row["average"]["mean"] + 0.02}


def large(runs: int = 10_000) -> dict[str, Any]:
    """About `runs` runs in four tables of equal size."""
    maker = Maker(1)
    for number in range(4):
        maker.table(f"network {number} (22.7 M)", rows=round(runs / 48))
    return maker.board


def one_row() -> dict[str, Any]:
    maker = Maker(2, seeds=1)
    maker.table(rows=1, tasks=1, up=False)
    return maker.board


def no_update() -> dict[str, Any]:
    """No row has a ΔW."""
    maker = Maker(3)
    maker.table(rows=4)
    for row in maker.board["tables"][0]["rows"]:
        row |= {"nominal": None, "effective": None, "stable": None, "norm": None, "layers": []}
    return maker.board


def empty() -> dict[str, Any]:
    return {"title": "empty", "problems": [], "trials": 0, "notes": [], "tables": [], "runs": {}}


def poisoned(value: Any, text: str) -> Any:
    """Every text in it replaced; keys stay, as the board's own words."""
    if isinstance(value, dict):
        return {name: poisoned(item, text) for name, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, text) for item in value]
    return text if isinstance(value, str) and value not in ("done", "oom") else value


def hostile() -> dict[str, Any]:
    """Texts that are markup, 10 kB long or null; numbers that are negative, missing or no numbers; unknown fields."""
    board = small()
    for table in board["tables"]:
        for j, row in enumerate(table["rows"]):
            row["label"] += HOSTILE + str(j)
            row["method"] += HOSTILE if j % 2 else "x" * 10_000
            row["settings"] = {HOSTILE: HOSTILE, "__proto__": "a"}
            row["unknown"] = {"a": [HOSTILE]}
        table["columns"] = poisoned(table["columns"], HOSTILE)
        table["columns"][0]["task_id"] = "glue/cola"
        for name in ("suite", "heading", "backbone", "source", "budget", "split", "baseline"):
            table[name] = HOSTILE * 100
        table["rows"][0] |= {"trainable": -5, "share": None, "stored_bytes": -1, "train_s": -3.0, "average": None}
        table["rows"][1] |= {"cells": None, "layers": None, "lrs": None, "states": None, "cautions": [None, HOSTILE]}
        table["rows"][2] |= {"label": None, "method": None, "average": {"mean": math.nan}, "trainable": math.inf}
        table["rows"][3]["cautions"] = [{"code": HOSTILE, "text": HOSTILE * 100}]
        table["rows"][3]["layers"] = [[HOSTILE, 2, math.inf, -1, None], ["x" * 10_000, None, 1, 1, 1], [None]]
    for run in board["runs"].values():
        run |= {"command": HOSTILE * 20, "error": HOSTILE * 100, "warnings": [HOSTILE, None], "git": HOSTILE, "new": 1}
        run["curve"] = [[1, None], None, [None, 2], [3, math.nan], *run["curve"]]
    board |= {"title": HOSTILE, "problems": [HOSTILE, "x" * 10_000, None], "notes": [HOSTILE], "other": HOSTILE}
    board["runs"]["__proto__"] = {"table": 0, "row": 0, "task": HOSTILE, "seed": None}
    return board
