"""The commands that follow from a recommendation: use the method, try the rank it needed, settle what is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leaderboard.recommend.recommendation import Candidate, Recommendation
from leaderboard.tables.cautions import SEEDS
from leaderboard.tables.grouping import group_by

Command = list[str]
DEFAULT = Path("runs")
MOST = 4


def commands(found: Recommendation, runs: Path) -> list[Command]:
    """Return a few commands for what is in the folder `runs`; none where nothing ran that a command repeats."""
    chosen = found.chosen
    if chosen is None:
        return _more_seeds(found.candidates, SEEDS)[:MOST] if found.few_seeds else []
    made = [_use(chosen, runs), _other_rank(found)]
    wanted = chosen if chosen.settling else next((one for one in found.unclear if one.settling), None)
    if wanted and wanted.settling and wanted.settling.seeds and found.best:
        made += _more_seeds([found.best, wanted], wanted.settling.seeds)
    elif found.best and found.best is not chosen and len(found.columns) == 1:
        groups = [one.runs[0].record.group_id for one in (found.best, chosen)]
        made.append(["bench", "compare", *groups, *_folder(runs)])
    return [one for one in made if one][:MOST]


def _use(chosen: Candidate, runs: Path) -> Command:
    """Export, or the nearest thing: of the run with the median score, since the best one was chosen on dev."""
    if len(chosen.row.runs) > 1:
        return []
    ordered = sorted(chosen.runs, key=lambda run: run.value)
    run = ordered[(len(ordered) - 1) // 2]
    method, keeps_all = chosen.row.method, run.record.spec.options.runtime.get("save") == "all"
    if method in ("adapter", "adapterdrop"):
        return ["bench", "export", run.run_id, "--adapter", "exported", *_folder(runs)]
    if run.record.ranks and (method in ("lora", "adalora", "deeplora") or method.startswith("peft:")):
        return ["bench", "export", run.run_id, "--peft", "exported", *_folder(runs)]
    if keeps_all or method in ("linear", "bitfit"):
        return ["bench", "export", run.run_id, "--merged", "exported", *_folder(runs)]
    return ["bench", "show", run.run_id, *_folder(runs)]


def _other_rank(found: Recommendation) -> Command:
    """Train the chosen method at the rank that it needed; LoRA at that rank where the method has none."""
    rank, chosen = found.rank, found.chosen
    if chosen is None or rank is None or not rank.smaller:
        return []
    seeds = sorted({run.seed[0] for run in chosen.runs})
    settings = {"method.rank": str(rank.smaller)}
    return _repeated(chosen, seeds, settings, method=None if rank.option else "lora")


def _more_seeds(candidates: Sequence[Candidate], count: int) -> list[Command]:
    """Train the candidates with so many seeds: a command for all that differ in the method alone."""
    made = [command for one in candidates if (command := _repeated(one, range(count)))]
    alike = group_by(made, lambda command: tuple(_options(command, "--method"))).values()
    return [
        _with(same[0], {"--method": ",".join(dict.fromkeys(_value(command, "--method") for command in same))})
        for same in alike
    ]


def _repeated(
    candidate: Candidate, seeds: Sequence[int], settings: Mapping[str, str] | None = None, method: str | None = None
) -> Command:
    """The command of the candidate's runs with other seeds and options; empty where its tasks have different ones."""
    found = [[*run.record.provenance.command] for run in candidate.runs]
    if not all(found) or len({tuple(_options(command, "--task", "--seeds")) for command in found}) > 1:
        return []
    tasks = ",".join(dict.fromkeys(_value(command, "--task") for command in found))
    command = _with(found[0], {"--task": tasks, "--seeds": ",".join(map(str, seeds))})
    if method:  # the options and the rates are those of the other method
        command = _without(command, "--lr")
        command = _with(_without(command, "--set", "method."), {"--method": method})
    for name, value in (settings or {}).items():
        command = [*_without(command, "--set", f"{name}="), "--set", f"{name}={value}"]
    return command


def _pairs(command: Sequence[str]) -> list[tuple[str, str]]:
    """Flags and values of `bench run …`, as `bench.harness.repeat` writes it."""
    return list(zip(command[2::2], command[3::2], strict=False))


def _options(command: Sequence[str], *without: str) -> list[tuple[str, str]]:
    return sorted(pair for pair in _pairs(command) if pair[0] not in without)


def _value(command: Sequence[str], flag: str) -> str:
    return dict(_pairs(command)).get(flag, "")


def _with(command: Sequence[str], values: Mapping[str, str]) -> Command:
    return ["bench", "run", *(word for flag, value in _pairs(command) for word in (flag, values.get(flag, value)))]


def _without(command: Sequence[str], flag: str, start: str = "") -> Command:
    """The command without the flag where its value starts so."""
    kept = (pair for pair in _pairs(command) if not (pair[0] == flag and pair[1].startswith(start)))
    return ["bench", "run", *(word for pair in kept for word in pair)]


def _folder(runs: Path) -> list[str]:
    return [] if runs == DEFAULT else ["--runs", str(runs)]
