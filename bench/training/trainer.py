"""Trains and evaluates one run: backbone, method and data in a Lightning Trainer."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

import torch
from lightning import Trainer, seed_everything
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, Strategy
from safetensors.torch import save_file

from bench.api import metrics, optimizers
from bench.api.backbone import Backbone
from bench.api.batching import BatchSplit
from bench.api.datamodule import Split, StepDataModule
from bench.api.dropout import drops
from bench.api.method import Method
from bench.api.network import Reports
from bench.api.running_statistics import moving_statistics
from bench.api.task import Task
from bench.backbones import runs
from bench.core import registry
from bench.core.errors import Diverged, MachineProblem, UsageError
from bench.core.files import replacing
from bench.records import predictions, results
from bench.records.data import Dataset
from bench.records.files import hashes, is_finished
from bench.records.record import ADAPTER
from bench.records.spec import RunSpec
from bench.spectra.tracking.tracker import SpectrumTracker
from bench.training import checkpoint, truncation
from bench.training.blocks import prepare_blocks
from bench.training.callbacks import Checkpoint, Evaluations, LossCurve, OnStep, course_steps, evaluation_steps
from bench.training.environment import without_launcher
from bench.training.gradients import GradientCheck
from bench.training.kept import keeps_predictions, kept
from bench.training.memory import PeakMemory
from bench.training.regularizers import nuclear_penalty
from bench.training.sharding import ShardedFrozenWeights

BARELY = 1e-3
"""Spectral norm of ΔW below which a layer counts as not having left its start."""
FILE = ADAPTER
DAMAGED = "the checkpoint of an interrupted attempt was damaged: this run began anew"


def fit(
    spec: RunSpec,
    task: Task,
    dataset: Dataset,
    backbone: Backbone,
    *,
    directory: Path,
    on_step: OnStep,
    on_warning: Callable[[str], object] = lambda _: None,
) -> results.TrainingResult:
    """Train and evaluate one run; one that was interrupted goes on from the checkpoint in `directory`.

    Args:
        spec: what to run on the opened task, data and backbone; its `lr` is set.
        directory: the run's folder, for checkpoint, spectra, adapter and outputs.
        on_step: called with step and loss after every optimiser step.
        on_warning: called before training with what is known of the data by then, such as how many texts are cut.

    Raises:
        Diverged: a loss or an output is not finite.
        UsageError: options that do not fit this backbone or this number of devices.
        MachineProblem: the clock went backwards.
    """
    runtime, split = spec.options.runtime, _batch_split(spec)
    file = checkpoint.path(directory, world=split.world, parts=split.parts)
    # processes of several devices find each other by the variables that their worker has set
    with _conditions(), without_launcher() if spec.processes == 1 else nullcontext():
        peak = PeakMemory()
        data, method, backbone_parameters = build(spec, task, dataset, backbone)
        for line in data.warnings():
            on_warning(line)
        curve, keeper = LossCurve(on_step), Checkpoint(file, data, runtime.checkpoint_s)
        evaluations = Evaluations(data.splits, _evaluated_steps(spec, data, method))
        tracker = SpectrumTracker(spec.options.spectra, steps=data.steps, directory=directory)
        gradients = GradientCheck()
        callbacks = [evaluations, curve, tracker, gradients, keeper]  # the curve's clock goes on after all is scored
        trainer = _trainer(spec, data.steps, method, callbacks, directory, evaluates=bool(evaluations.at))
        blocks = [block for stack in method.stacks.values() for block in stack]
        device = trainer.strategy.root_device
        prepare_blocks(
            method.backbone,
            blocks,
            compiled=runtime.compile,
            checkpointed=runtime.gradient_checkpointing,
            device=device.type,
        )
        whole = file.is_file() and checkpoint.is_whole(file)
        damaged = [DAMAGED] if file.is_file() and not whole else []
        trainer.fit(method, datamodule=data, ckpt_path=file if whole else None, weights_only=True)
        began = time.perf_counter()
        trainer.validate(method, datamodule=data, verbose=False)
        scores, constant = _metrics(method, evaluations), _constant(method, evaluations)
        predicted = evaluations.predictions
        eval_s = time.perf_counter() - began
        sweep: list[results.SweepPoint] = []
        for setting in method.sweep():
            trainer.validate(method, datamodule=data, verbose=False)
            swept = _metrics(method, evaluations)
            sweep.append(results.SweepPoint(**setting, primary=swept.primary.value, metrics=swept.all))
        cut, cut_notes, truncation_s = _truncation(spec, trainer, method, data, evaluations)
    _check_clock(directory, training=curve.train_s, evaluation=eval_s, tracking=tracker.tracking_s)
    if isinstance(trainer.strategy, ShardedFrozenWeights):
        trainer.strategy.gather()
    method = method.cpu()
    ranks = [delta.ranks(name) for name, delta in method.deltas()]
    exported = method.export()
    files: dict[str, str] = {}
    if trainer.is_global_zero and not is_finished(directory):  # by another command meanwhile
        names = kept(type(method), runtime.save)
        if FILE in names:
            _save(method, exported, directory)
        if runs.FOLDER in names:
            runs.save(method.backbone, backbone, task.spec, directory / runs.FOLDER)
        if keeps_predictions(spec, type(method), predicted):
            predictions.write(directory / predictions.FILE, predicted)
            names = (*names, predictions.FILE)
        files = hashes(directory, (*names, tracker.file.name))
    network, stored_bytes = method.backbone, sum(tensor.nbytes for tensor in exported.values())
    return results.TrainingResult(
        metrics=scores,
        params=results.Parameters(**method.parameter_counts(), stored_bytes=stored_bytes),
        ranks=tuple(ranks),
        cost=results.Cost(
            steps=data.steps,
            samples=data.samples,
            train_s=round(curve.train_s, 3),
            eval_s=round(eval_s, 3),
            tracking_s=round(tracker.tracking_s, 3),
            peak_memory_bytes=peak.on(device),
            cache_bytes=method.cache_bytes,
            optimizer_bytes=sum(optimizers.state_bytes(optimizer) for optimizer in trainer.optimizers),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            devices=trainer.world_size,
            resumed_at=tuple(keeper.resumed),
            truncation_s=round(truncation_s, 3),
        ),
        curve=tuple(results.LossPoint(step=step, loss=loss) for step, loss in curve.points),
        warnings=(
            *damaged,
            *dataset.warnings,
            *data.warnings(),
            *constant,
            *_random(backbone, method, backbone_parameters),
            *_barely(ranks),
            *_shares(method, split),
            *gradients.warnings,
            *method.warnings(),
            *tracker.warnings(),
            *cut_notes,
        ),
        backbone_parameters=backbone_parameters,
        report={
            **data.report(),
            **(network.report(method.head) if isinstance(network, Reports) else {}),
            **method.report(),
        },
        spectra=tracker.result(),
        evaluations=tuple(evaluations.rows),
        sweep=tuple(sweep),
        truncation=cut,
        files=files,
    )


def trained(
    spec: RunSpec, task: Task, dataset: Dataset, backbone: Backbone, *, callbacks: Sequence[Callback]
) -> tuple[Method, StepDataModule[object, Split]]:
    """Train a run under callbacks; return the method, on the CPU, and its data module. Nothing is written."""
    with _conditions(), without_launcher():
        data, method, _ = build(spec, task, dataset, backbone)
        _trainer(spec, data.steps, method, callbacks).fit(method, datamodule=data)
    return method.cpu(), data


def build(
    spec: RunSpec, task: Task, dataset: Dataset, backbone: Backbone
) -> tuple[StepDataModule[object, Split], Method, int]:
    """Return the data module, the adapted method and the backbone's parameters before that, equal at every call."""
    seed_everything(spec.seed, workers=True, verbose=False)
    data: StepDataModule[object, Split] = task.datamodule(dataset, backbone, spec)
    options = spec.options
    network = backbone.load(task=task.spec, head=options.head, seed=spec.seed)
    parameters = sum(p.numel() for p in network.parameters())
    kind: type[Method] = registry.load("methods", spec.method)
    method = kind(
        network,
        task.spec,
        options.method.changed(start=spec.start) if spec.start else options.method,
        head=options.head,
        optim=options.optim,
        lr=spec.lr or 0.0,
        seed=spec.seed,
        allocation=options.allocation,
    )
    bias = cast("torch.nn.Parameter | None", method.head.bias)  # a deep linear network has none
    if bias is not None and not task.spec.num_classes and task.spec.targets == 1 and task.spec.labelled:
        bias.data.fill_(data.label_mean)  # squared error would spend its first steps on the mean alone
    if data.class_weights is not None:  # before `adapt`, which may take a gradient
        method.class_weights = torch.tensor(data.class_weights, dtype=torch.float32)
    method.adapt(data.first_batch())
    if options.penalty.nuclear:
        method.penalties.append(nuclear_penalty(method, options.penalty))
    if not any(p.requires_grad for p in method.parameters()):
        raise UsageError(
            f"{spec.method} has nothing to train here", "head.trainable=false freezes the head", "Let the head train."
        )
    # transformers hands out networks in evaluation mode, and Lightning keeps modes
    return data, method.train(), parameters


def _batch_split(spec: RunSpec) -> BatchSplit:
    return BatchSplit(batch_size=spec.batch_size, world=spec.processes, micro=spec.options.runtime.micro_batch)


def _evaluated_steps(spec: RunSpec, data: StepDataModule[object, Split], method: Method) -> frozenset[int]:
    """Return the steps after which dev is evaluated: those of `--evaluate`, or else those that the method asks for."""
    if spec.evaluate is None:
        return evaluation_steps(data.steps, method.evaluations)
    return course_steps(spec.evaluate, data.steps, per_epoch=data.batches.per_epoch)


def _trainer(
    spec: RunSpec,
    steps: int,
    method: Method,
    callbacks: Sequence[Callback],
    directory: Path | None = None,
    *,
    evaluates: bool = False,
) -> Trainer:
    return Trainer(
        accelerator=spec.accelerator,
        devices=spec.devices,
        num_nodes=spec.options.runtime.nodes,
        strategy=_strategy(spec, method),
        plugins=[LightningEnvironment()],  # instead of the cluster's, which starts no processes
        default_root_dir=directory,
        precision=spec.precision,
        max_steps=steps,
        max_epochs=1,  # the loader holds the whole run: its own order of batches, over all of the data's epochs
        accumulate_grad_batches=_batch_split(spec).parts,
        gradient_clip_val=method.optim.clip or None,
        # `Evaluations` chooses among the batches; without evaluations dev is scored only after the end
        val_check_interval=1 if evaluates else None,
        check_val_every_n_epoch=None if evaluates else 10**9,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[*callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _strategy(spec: RunSpec, method: Method) -> Strategy | str:
    if spec.processes == 1:
        return "auto"
    # a network may hold tensors that no output depends on, and a method may leave some out of a step
    unused = True
    if spec.options.runtime.strategy != "fsdp":
        return DDPStrategy(find_unused_parameters=unused)
    return ShardedFrozenWeights(method, find_unused_parameters=unused)


def _truncation(
    spec: RunSpec, trainer: Trainer, method: Method, data: StepDataModule[object, Split], evaluations: Evaluations
) -> tuple[results.Truncation | None, list[str], float]:
    """Find the rank needed of a run that is no trial; return it, what the reader must know of it, and seconds."""
    runtime, began = spec.options.runtime, time.perf_counter()
    if spec.holdout or runtime.truncation == "off":
        return None, [], 0.0
    evaluations.splits = data.splits[:1]
    owner = method if method.primary else method.task

    def evaluate() -> truncation.Scored:
        loader = data.evaluation_loader(data.splits[0], most=runtime.truncation_examples)
        trainer.validate(method, dataloaders=loader, verbose=False)
        found = evaluations.predictions[data.splits[0]]
        outputs, labels = torch.from_numpy(found.outputs), torch.from_numpy(found.labels)
        return truncation.Scored(_metrics(method, evaluations).primary.value, outputs, labels)

    def score(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        values = method.evaluate(outputs, labels)
        return metrics.mean([values[name] for name in owner.primary])

    try:
        # hooks on a compiled block would not be seen
        with torch.compiler.set_stance("force_eager"):
            found, notes = truncation.measure(
                method,
                evaluate,
                score,
                split=data.splits[0],
                higher_is_better=owner.higher_is_better,
                per_layer=runtime.truncation == "layers",
            )
    except (RuntimeError, Diverged) as error:  # no memory, say; the run itself is done
        found, notes = None, [f"rank needed was not measured: {next(iter(str(error).splitlines()), repr(error))}"]
    return found, notes, time.perf_counter() - began


def _metrics(method: Method, evaluations: Evaluations) -> results.Metrics:
    """Every metric of the last evaluation; the primary one is that of the first split."""
    owner, split = method if method.primary else method.task, evaluations.splits[0]
    primary = results.PrimaryMetric(
        name="+".join(owner.primary),
        value=metrics.mean([evaluations.scores[split][name] for name in owner.primary]),
        split=split,
        higher_is_better=owner.higher_is_better,
        n=evaluations.sizes[split],
        of="method" if method.primary else "task",
    )
    return results.Metrics(primary=primary, all=evaluations.scores, majority=evaluations.majority)


def _save(method: Method, exported: dict[str, torch.Tensor], directory: Path) -> None:
    """Write what was trained, with the head, a frozen one too."""
    tensors = {**{f"head.{name}": tensor for name, tensor in method.head.state_dict().items()}, **exported}
    with replacing(directory / FILE, sync=True) as temporary:
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary)


def _constant(method: Method, evaluations: Evaluations) -> list[str]:
    what = "the same classes, or none, for every example of" if method.task.multilabel else "one class only on"
    return [f"the outputs name {what} {split}: no class was learned" for split in evaluations.constant]


def _random(backbone: Backbone, method: Method, parameters: int) -> list[str]:
    """What makes a score that of random features: most of a network without pretrained weights is frozen."""
    frozen = min(parameters, sum(p.numel() for p in method.backbone.parameters() if not p.requires_grad))
    if backbone.pretrained or 2 * frozen <= parameters:
        return []
    return [f"{backbone.name} is random: {frozen:,} of its {parameters:,} parameters stay as they were drawn"]


def _check_clock(directory: Path, **seconds: float) -> None:
    """Refuse times that cannot be; a checkpoint would bring them back."""
    wrong = [f"{name} took {value:.3f} s" for name, value in seconds.items() if value < 0]
    if wrong:
        checkpoint.drop(directory)
        raise MachineProblem(
            "the clock of this machine went backwards while the run was timed",
            ", ".join(wrong),
            "Repair the clock, then run the same command again: it trains this run anew.",
        )


def _barely(ranks: Sequence[results.LayerRank]) -> list[str]:
    norms = [r.norm for r in ranks if r.norm < BARELY and r.nominal]  # a method may take a layer's rank away
    if not norms:
        return []
    where = f"{len(norms)} of {len(ranks)} layers"
    return [f"ΔW barely left its start in {where}: ‖ΔW‖₂ < {BARELY:g}, least {min(norms):.1e}"]


def _shares(method: Method, split: BatchSplit) -> list[str]:
    """What makes a batch in parts another experiment: statistics of the batch, and masks drawn for it."""
    if split.world * split.parts == 1:
        return []
    reasons = ["BatchNorm takes the statistics"] if moving_statistics(method.backbone) else []
    dropout = method.head_config.dropout or getattr(method.config, "dropout", 0)  # no module shows these two
    reasons += ["dropout draws the masks"] if dropout or drops(method) else []
    end = "of a part of each batch: on other devices or in other micro batches this run differs"
    return [f"{reason} {end}" for reason in reasons]


@contextmanager
def _conditions() -> Generator[None]:
    """Settings under which every run trains.

    Convolutions add up in one order on a GPU too: there cuDNN's fastest are not the same from run to run. Lightning's
    advice on loaders and loggers is for people who write them, so it is not shown.
    """
    cudnn = torch.backends.cudnn
    deterministic, cudnn.deterministic = cudnn.deterministic, True
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(lightning|torchmetrics)\..*")
            warnings.filterwarnings("ignore", message=r".*(isinstance\(treespec|LeafSpec|lr_scheduler\.step).*")
            yield
    finally:
        cudnn.deterministic = deterministic
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
