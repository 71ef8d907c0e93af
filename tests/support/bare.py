"""Loads exported folders as a stranger does: in a process where importing this suite is an error.

    python bare.py JOBS.json OUT.json

JOBS is a list of `{"folder", "texts", "pairs", "images"}`; OUT gets for each the outputs of the lines in its README,
and with `"pipeline"` what transformers' pipeline gives.
"""

from __future__ import annotations

import importlib.abc
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

OURS = ("bench", "methods", "tasks", "leaderboard")


class Refusal(importlib.abc.MetaPathFinder):
    """Finds nothing, and refuses the packages of this suite."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name.partition(".")[0] in OURS:
            raise ImportError(f"{name} is imported")


def code(folder: Path) -> str:
    """The lines of Python in a model card."""
    [found] = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), flags=re.M | re.S)
    return found


def outputs(job: dict[str, Any]) -> dict[str, Any]:
    os.chdir(job["folder"])
    scope: dict[str, Any] = {}
    exec(compile(code(Path()), "README.md", "exec"), scope)
    if job.get("images"):
        from PIL import Image

        inputs: list[Any] = [[Image.open(file) for file in job["images"]]]
    else:
        inputs = [job["texts"], *([job["pairs"]] if job.get("pairs") else [])]
    found = {"outputs": scope["outputs"](*inputs).tolist()}
    if job.get("pipeline"):
        from transformers import pipeline

        pipe = pipeline("text-classification", job["folder"], top_k=None, truncation=True)
        found["pipeline"] = [{one["label"]: one["score"] for one in given} for given in pipe(job["texts"])]
    return found


if __name__ == "__main__":
    sys.meta_path.insert(0, Refusal())
    jobs, out = map(Path, sys.argv[1:3])
    found = [outputs(job) for job in json.loads(jobs.read_text())]
    assert not set(OURS) & set(sys.modules)
    out.write_text(json.dumps(found))
