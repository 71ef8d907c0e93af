"""Runs of GLUE, and a grid of them."""

from __future__ import annotations

import numpy as np
import pytest

ERROR = {"what": "it broke", "known": "", "todo": ""}
TASKS = {"cola": "matthews", "mrpc": "accuracy+f1", "rte": "accuracy"}


@pytest.fixture
def run(make_record):
    """`run("lora", "cola", 0, 0.5)`: a done run of GLUE; without a value a failed one."""

    def make(method, task, seed, value=None, /, *, state="failed", spec=None, **overrides):
        spec = {"method": method, "task": f"glue/{task}", "seed": seed, **(spec or {})}
        source = {"data_hash": f"data of {task}", **overrides.pop("source", {})}
        if value is None:
            overrides = {"state": state, "error": ERROR, "metrics": None} | overrides
        else:
            overrides["metrics"] = {"primary": {"name": TASKS.get(task, "accuracy"), "value": value}}
        return make_record(spec=spec, source=source, **overrides)

    return make


@pytest.fixture
def grid(run):
    """Every method × task × seed with a random score, and the scores as an array of that shape."""

    def make(methods=("full", "lora"), tasks=tuple(TASKS), seeds=4):
        scores = np.random.default_rng(0).uniform(0, 1, (len(methods), len(tasks), seeds))
        records = [
            run(method, task, seed, float(scores[i, j, seed]))
            for i, method in enumerate(methods)
            for j, task in enumerate(tasks)
            for seed in range(seeds)
        ]
        return records, scores

    return make
