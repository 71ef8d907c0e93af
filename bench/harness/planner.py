"""From a request to a plan: names resolved, options built, data and backbones opened, nothing trained yet."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import TypedDict

from bench.api.backbone import Backbone
from bench.api.batching import BatchSplit
from bench.api.task import Task
from bench.config.options import Config, Value
from bench.config.overrides import Configs, Name, Overrides, build_configs
from bench.config.sections import AllocationConfig, DataConfig, MethodConfig, Sections
from bench.core.errors import BenchError, EnvironmentProblem, UsageError
from bench.harness import search
from bench.harness.devices import check_devices
from bench.harness.inputs import Inputs, Lists, LoadedTask, Skip, open_start, variant_name
from bench.harness.matching import Match, Matcher
from bench.harness.misfits import check_allocation, check_evaluations, check_match, check_strategy, why_not
from bench.harness.request import DEFAULT_BACKBONES, Request
from bench.records.data import Dataset
from bench.records.schema import Record
from bench.records.spec import Candidates, RunOptions, RunSpec

DEFAULT_STEPS = 150
HOLDOUT_SHARE, HOLDOUT_MOST = 0.1, 1000
"""`--select` decides on a tenth of the examples that a run may see, on 1000 at most."""
HOLDOUT_FEW = 100
"""Of the few examples of `--train-samples` a quarter decides, if that is no more than this."""
SELECT_SEED = 0
"""Trials have one seed, whatever `--seeds` says, so that adding seeds changes no choice."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run to do.

    Attributes:
        backbone_name: name of the backbone as given: of a folder, its path.
        overrides: those of its variant of the grid.
        match: how its parameters were made those of another method; None where they were not.
        trials: runs that choose this one's learning rate or options, so far as they are known before any has trained;
            empty where nothing is to be chosen.
    """

    spec: RunSpec
    loaded: LoadedTask
    backbone: Backbone
    backbone_name: str
    overrides: Overrides = field(default_factory=Overrides)
    match: Match | None = None
    trials: tuple[PlannedRun, ...] = ()

    @property
    def task(self) -> Task:
        return self.loaded.task

    @property
    def dataset(self) -> Dataset:
        return self.loaded.dataset

    @property
    def configs(self) -> list[tuple[str, Config]]:
        """The options that decide about it and its trials, with their namespaces."""
        trials = [("task", trial.spec.options.task) for trial in self.trials]
        return [*vars(self.spec.options).items(), *trials, ("data", DataConfig())]

    @property
    def given(self) -> dict[Name, str]:
        """The overrides that reached it: other methods of the grid may have options that this one lacks."""
        found = self.overrides.reaching(self.configs)
        allocates = self.spec.options.method.allocates
        return {name: value for name, value in found.items() if allocates or name[0] != AllocationConfig.namespace}

    @property
    def run_id(self) -> str:
        """Hash of specification, data and weights."""
        return self.spec.run_id(self.dataset.hash, self.backbone.weights_hash)

    @property
    def group_id(self) -> str:
        """The same without the seed."""
        return self.spec.group_id(self.dataset.hash, self.backbone.weights_hash)

    def to_json(self) -> dict[str, object]:
        """Return `{run_id, group_id, source, spec, trials}`, and `match` where there is one."""
        dataset = self.dataset
        source = {"kind": dataset.source, "revision": dataset.revision, "data_hash": dataset.hash}
        return {
            "run_id": self.run_id,
            "group_id": self.group_id,
            "source": {**source, "reading": dict(dataset.reading)} if dataset.reading else source,
            "spec": self.spec.to_json(),
            "trials": [self._tried(trial.spec) for trial in self.trials],
            **({"match": asdict(self.match)} if self.match else {}),
        }

    def _tried(self, trial: RunSpec) -> dict[str, Value]:
        return {"lr": trial.lr, **{name: trial.options.value(name) for name, _ in self.spec.space}}


class PlanJSON(TypedDict):
    """A plan as `--json` prints it: the runs (`PlannedRun.to_json`), and name, absent, what, known and todo of all that
    was left out. `--dry-run` adds what `Outlook.to_json` says.
    """

    runs: list[dict[str, object]]
    skipped: list[dict[str, object]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a grid, and what was left out of it."""

    request: Request
    runs: tuple[PlannedRun, ...]
    skipped: tuple[Skip, ...]

    @property
    def trials(self) -> tuple[PlannedRun, ...]:
        """The distinct trials of all runs, in order."""
        return tuple({t.run_id: t for run in self.runs for t in run.trials}.values())

    @property
    def broken(self) -> tuple[Skip, ...]:
        """What cannot run though it should."""
        return tuple(s for s in self.skipped if not s.absent)

    def in_order(self, records: Iterable[Record]) -> list[Record]:
        """Return the records of its runs in its own order; several processes end runs in any."""
        place = {run.run_id: number for number, run in enumerate(self.runs)}
        return sorted(records, key=lambda record: place[record.run_id])

    def to_json(self) -> PlanJSON:
        return {
            "runs": [run.to_json() for run in self.runs],
            "skipped": [
                {"name": s.name, "absent": s.absent, "what": s.error.what, "known": s.error.known, "todo": s.error.todo}
                for s in self.skipped
            ],
        }


def make_plan(request: Request) -> Plan:
    """Resolve a request into runs: options built, data and backbones opened, nothing trained.

    Raises:
        UsageError: an unknown name, key or value.
        EnvironmentProblem: nothing of it can run, a device is missing, or, with `strict`, some of it cannot.
    """
    variants = build_configs(
        request.overrides, methods=request.configured, tasks=request.families, backbones=request.openers
    )
    for configs in variants:
        check_allocation(configs)
    check_evaluations(request)
    check_match(request)
    if request.trials:
        search.check_engine()
    shared = variants[0].sections  # what it is read for here has one value in a grid
    request = replace(request, data=replace(request.data, on_bad=shared.data.on_bad))
    BatchSplit(
        batch_size=request.batch_size, world=request.devices * shared.runtime.nodes, micro=shared.runtime.micro_batch
    )  # checks that the sizes fit
    check_strategy(request, shared)
    check_devices(request.accelerator, request.devices)
    inputs = Inputs(request)
    lists = frozenset(
        name for name in request.overrides.given if len({one.overrides.value(*name) for one in variants}) > 1
    )
    matcher = Matcher()
    distinct: dict[str, PlannedRun] = {}
    for configs in variants:
        for run in _runs(configs, inputs, lists, matcher):
            distinct.setdefault(run.run_id, run)  # an option that a method lacks makes no second run of it
    skipped = tuple({(skip.name, skip.error.what): skip for skip in inputs.skipped}.values())
    if not distinct:
        raise _nothing(skipped)
    if request.strict and skipped:
        raise _nothing(skipped, "--strict: not all of what was asked can run")
    return Plan(request=request, runs=tuple(distinct.values()), skipped=skipped)


def _runs(configs: Configs, inputs: Inputs, lists: Lists, matcher: Matcher) -> Generator[PlannedRun]:
    """Plan the runs of one variant; what does not go together is added to `inputs.skipped`."""
    request, overrides = inputs.request, configs.overrides
    methods = {name: open_start(overrides, name, config) for name, config in configs.methods.items()}
    tasks = inputs.tasks(request.tasks, configs, lists)
    backbones = inputs.backbones(configs, lists)
    selectors = inputs.tasks((request.select_on,) if request.select_on else (), configs, lists)
    if request.select_on and not selectors:
        raise _nothing(inputs.skipped)
    for method, (backbone_name, backbone), loaded in product(request.methods, backbones, tasks):
        if not request.backbones and DEFAULT_BACKBONES[loaded.task.spec.modality] != backbone.name:
            continue
        config, start = methods[method]
        base = _spec(request, method, config, configs.sections, backbone, loaded).with_(start=start)
        run = PlannedRun(spec=base, loaded=loaded, backbone=backbone, backbone_name=backbone_name, overrides=overrides)
        space = _space(base, overrides)
        each = (base, *(base.at({name: value}) for name, values in space for value in values))
        if misfit := next(filter(None, (why_not(spec, backbone, loaded) for spec in each)), None):
            name = variant_name(f"{method} × {loaded.task.spec.name}", run.given, lists)
            inputs.skipped.append(Skip(name=name, error=misfit))
            continue
        if (other := request.match_params) not in (None, method):
            config, start = methods[other]
            to = _spec(request, other, config, configs.sections, backbone, loaded).with_(start=start)
            try:
                run = _matched(run, matcher.match(base, to, loaded, backbone))
            except BenchError as error:
                inputs.skipped.append(Skip(name=f"{method} × {loaded.task.spec.name}", error=error))
                continue
            base = run.spec
        for seed in request.seeds:
            seeded = replace(run, spec=base.with_(seed=seed))
            for rated in _with_rates(request, seeded):
                chosen = rated.spec.select or space
                yield _with_trials(request, rated, space, selectors[0] if selectors else loaded) if chosen else rated


def _matched(run: PlannedRun, match: Match) -> PlannedRun:
    """Give a run the option that a match found, as if it had been given by `--set`."""
    space, _, key = match.option.partition(".")
    overrides = replace(run.overrides, given={**run.overrides.given, (space, key): str(match.value)})
    return replace(run, spec=run.spec.at({match.option: match.value}), overrides=overrides, match=match)


def _space(base: RunSpec, overrides: Overrides) -> tuple[Candidates, ...]:
    """Return the options that a selection chooses for a run, in the order of their names."""
    found: dict[str, tuple[Value, ...]] = {}
    options: dict[str, Config] = vars(base.options)
    for space, config in options.items():
        if space != AllocationConfig.namespace or base.options.method.allocates:
            found |= overrides.candidates(space, type(config))
    return tuple(Candidates(*one) for one in sorted(found.items()))


def _with_rates(request: Request, run: PlannedRun) -> list[PlannedRun]:
    """One run per learning rate, or one that has to choose from several."""
    base, config = run.spec, run.spec.options.method
    scratch = 0.0 if run.backbone.pretrained else config.scratch_learning_rate
    if "lr" not in request.select:
        rates = request.lrs or (scratch or config.learning_rate,)
        return [replace(run, spec=base.with_(lr=rate)) for rate in rates]
    around = tuple(float(f"{factor * scratch:.1g}") for factor in (0.3, 1, 3)) if scratch else ()
    rates = request.lrs or around or config.learning_rates
    if request.trials:
        return [replace(run, spec=base.with_(select=(min(rates), max(rates))))]
    return [replace(run, spec=base.with_(select=rates, widen=request.widen))]


def _with_trials(request: Request, run: PlannedRun, space: tuple[Candidates, ...], selector: LoadedTask) -> PlannedRun:
    """The run whose learning rate or options trials on `selector` choose."""
    base = run.spec.with_(space=space, trials=request.trials or 0)
    name = selector.task.spec.name
    trial = run.spec.with_(
        select=(),
        widen=0,
        task=name,
        seed=SELECT_SEED,
        track="off",
        evaluate=None,
        holdout=_holdout(base.train_samples, len(selector.dataset.train)),
        data_options=selector.data_options,
    ).with_options(task=selector.request.config_as(Config))
    values = search.suggestions(base) if base.trials else search.combinations(base)
    trials = {trial.run_id: trial for trial in (replace(run, spec=trial.at(one), loaded=selector) for one in values)}
    return replace(run, spec=base.with_(select_on=name), trials=tuple(trials.values()))


def _spec(
    request: Request,
    method: str,
    config: MethodConfig,
    sections: Sections,
    backbone: Backbone,
    loaded: LoadedTask,
) -> RunSpec:
    """The specification of a run, but for its seed and its learning rate."""
    return RunSpec(
        method=method,
        task=loaded.task.spec.name,
        backbone=backbone.name,
        max_steps=request.max_steps or (None if request.epochs else DEFAULT_STEPS),
        epochs=request.epochs,
        batch_size=request.batch_size,
        train_samples=request.train_samples,
        evaluate=request.evaluate,
        precision=request.precision,
        accelerator=request.accelerator,
        devices=request.devices,
        track=request.track,
        out=str(request.out),
        options=RunOptions(
            method=config,
            task=loaded.request.config_as(Config),
            backbone=backbone.config,
            head=sections.head,
            optim=sections.optim,
            penalty=sections.penalty,
            allocation=sections.allocation if config.allocates else AllocationConfig(),
            spectra=sections.spectra,
            runtime=sections.runtime,
        ),
        data_options=loaded.data_options,
    )


def _holdout(train_samples: int | None, train: int) -> int:
    """Return how many of the examples that a run may see decide on its learning rate."""
    few = min(HOLDOUT_FEW, train_samples // 4) if train_samples else 0
    return min(HOLDOUT_MOST, max(1, few, round(HOLDOUT_SHARE * min(train_samples or train, train))))


def _nothing(skipped: Sequence[Skip], what: str = "nothing of this can run") -> BenchError:
    """One error for all: the common one where it is common, else one line for each, with the names it concerns."""
    names: dict[str, list[str]] = {}
    known: dict[str, str] = {}
    for skip in skipped:
        names.setdefault(skip.error.what, []).append(skip.name)
        known.setdefault(skip.error.what, skip.error.known)
    first = skipped[0].error
    kind = UsageError if all(isinstance(skip.error, UsageError) for skip in skipped) else EnvironmentProblem
    if len(names) == 1:
        same = len({skip.error.known for skip in skipped}) == 1
        return kind(first.what, first.known if same else f"asked for {', '.join(names[first.what])}", first.todo)
    lines = [f"{', '.join(who)}: {reason} ({known[reason]})" for reason, who in names.items()]
    return kind(what, "\n".join(lines), first.todo)
