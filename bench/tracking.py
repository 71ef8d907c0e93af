"""Weights & Biases as a mirror of the record: written after it, from it alone, never read by the suite."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from bench.hub import silence
from bench.record import Record

PROJECT = "lowrank-bench"


def mirror(record: Record, folder: Path) -> dict[str, Any]:
    """Send a finished run to W&B; without a key, write an offline run into `folder`.

    Returns:
        The record's `tracking` entry. A failure is in its `error`, and printed; it never fails the run.
    """
    kept: dict[str, Any] = {
        "kind": "wandb",
        "mode": "offline",
        "id": record["run_id"],
        "error": None,
        "directory": None,
    }
    try:
        kept["mode"] = _mode()
        kept["directory"] = _send(record, folder, kept["mode"])
    except Exception as error:  # whatever a mirror does, the record stands
        kept["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        sys.stderr.write(f"warning: W&B did not take {record['run_id']}: {kept['error']}\n")
    return kept


def _mode() -> str:
    """`WANDB_MODE` if it is set; else online with a key and a server that answers, offline without."""
    chosen = os.environ.get("WANDB_MODE")
    if chosen in ("online", "offline"):
        return chosen
    if not _key():
        return "offline"
    # W&B itself would wait a minute and a half, for every run
    if reason := silence(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"):
        sys.stderr.write(f"warning: {reason}; the W&B run is offline, `wandb sync` sends it later\n")
        return "offline"
    return "online"


def _key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))
    try:
        found = wandb.login(prompt=False, verify=False)
    except TypeError:  # releases that know no `prompt`
        found = wandb.api.api_key
    return bool(found)


def _send(record: Record, folder: Path, mode: str) -> str | None:
    import wandb

    spec = record["spec"]
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=record["run_id"],
        name=f"{spec['method']} {spec['task']} seed {spec['seed']}",
        group=record["group_id"],
        job_type=spec["method"],
        tags=[spec["method"], spec["task"], spec["backbone"], record["source"]["kind"]],
        config={**spec, "lr": record["lr"], "source": record["source"]},
        mode=mode,  # type: ignore[arg-type]
        dir=str(folder),
        resume="allow",
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
    )
    try:
        _log(run, record)
        return Path(run.dir).parent.name if mode == "offline" else None
    finally:
        run.finish()  # the next run would otherwise be logged into this one


def _log(run: Any, record: Record) -> None:
    """Loss curve, scores on the way and at the end, summary and the table of ranks."""
    primary = record["metrics"]["primary"]
    run.define_metric("train/loss", step_metric="step", summary="min")
    run.define_metric("primary", summary="max" if primary["higher_is_better"] else "min")
    for point in record["curve"]:
        run.log({"step": point["step"], "train/loss": point["loss"]})
    run.define_metric("evaluation/*", step_metric="step")
    for row in record.get("evaluations", ()):
        scores = {f"{split}/{n}": value for split, found in row["metrics"].items() for n, value in found.items()}
        run.log({"step": row["step"], **{f"evaluation/{name}": value for name, value in scores.items()}})
    run.log({"primary": primary["value"]})
    run.summary.update(_summary(record))
    if record["ranks"]:
        import wandb

        columns = list(record["ranks"][0])
        rows: list[Any] = [[str(v) if isinstance(v, list) else v for v in r.values()] for r in record["ranks"]]
        run.log({"ranks": wandb.Table(columns=columns, data=rows)})


def _summary(record: Record) -> dict[str, Any]:
    """Scores, counts, costs and mean ranks, by flat names."""
    flat: dict[str, Any] = {"state": record["state"]}
    for split, scores in record["metrics"]["all"].items():
        flat |= {f"{split}/{name}": value for name, value in scores.items()}
    flat |= {f"params/{k}": v for k, v in record["params"].items()}
    flat |= {f"cost/{k}": v for k, v in record["cost"].items()}
    if record["ranks"]:
        for name in ("nominal", "stable", "effective", "energy90", "norm"):
            flat[f"rank/{name}"] = sum(r[name] for r in record["ranks"]) / len(record["ranks"])
    return flat
