"""One cell in a process of its own, `python -m bench.worker JOB`: for several devices, whose launcher repeats it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import errors
from bench.data import DataRequest
from bench.errors import BenchError
from bench.spec import RunSpec

JOB, RESULT, LOG = "job.json", "result.json", "worker.log"
STEP = "step "
"""Lines of standard output that begin so carry a step and its loss."""


def job(spec: RunSpec, data: DataRequest, backbone: Path, data_hash: str) -> dict[str, Any]:
    """What the process must know, as JSON values."""
    request = {**asdict(data), "dirs": [[name, str(folder)] for name, folder in data.dirs]}
    request["parent"] = str(data.parent) if data.parent else None
    return {"spec": spec.to_json(), "data": request, "backbone": str(backbone), "data_hash": data_hash}


def take(result: Path, log: Path) -> dict[str, Any]:
    """What the process left.

    Raises:
        BenchError: what it raised, or that it ended without a word.
    """
    if not result.is_file():
        last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.is_file() else []
        raise BenchError("the run's process ended without a result", f"{log.name}: {''.join(last)}", "See its log.")
    found = json.loads(result.read_text())
    result.unlink()
    if "error" in found:
        kind = errors.Diverged if found["diverged"] else BenchError
        raise kind(*found["error"])
    return found


def end(process: subprocess.Popen[str]) -> None:
    """Stop it and the processes it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main(path: Path) -> None:
    """Run the job; the first device writes the result or the error beside it."""
    from bench.backbones import open_backbone
    from bench.config import BackboneConfig
    from bench.fit import fit
    from bench.plan import expand

    asked = json.loads(path.read_text())
    spec = RunSpec.from_json(asked["spec"])
    data = asked["data"]
    parent = Path(data["parent"]) if data["parent"] else None
    request = DataRequest(data=data["data"], dirs=tuple((n, Path(d)) for n, d in data["dirs"]), parent=parent)
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    try:
        [(_, task)] = expand([spec.task])
        corpus = task.open(request)
        if corpus.hash != asked["data_hash"]:
            raise BenchError("the data changed while the plan ran", spec.task, "Run the command again.")
        config = BackboneConfig(**spec.backbone_options)  # type: ignore[arg-type]
        name = spec.backbone if spec.backbone == "minilm" else asked["backbone"]
        tell = _tell if first else lambda step, loss: None
        result = fit(spec, task, corpus, open_backbone(name, config), directory=path.parent, tell=tell)
    except BenchError as error:
        three = [error.what, error.known, error.todo]
        result = {"error": three, "diverged": isinstance(error, errors.Diverged)}
    if first:
        temporary = path.parent / f"{RESULT}.tmp"
        temporary.write_text(json.dumps(result, allow_nan=False))
        temporary.replace(path.parent / RESULT)


def _tell(step: int, loss: float) -> None:
    sys.stdout.write(f"{STEP}{step} {loss!r}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
