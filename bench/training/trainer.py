"""Trains and evaluates one run: backbone, method and data in a Lightning Trainer."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment
from safetensors.torch import save_file

from bench.api import metrics, optimizers
from bench.api.backbone import Backbone
from bench.api.batching import BatchSplit
from bench.api.dropout import drops
from bench.api.method import Method
from bench.api.network import Reports
from bench.api.running_statistics import moving_statistics
from bench.api.task import Task
from bench.backbones import runs
from bench.config.sections import RuntimeConfig
from bench.core import registry
from bench.core.errors import UsageError
from bench.core.files import replacing
from bench.records.data import Dataset
from bench.records.schema import (
    Cost,
    LayerRank,
    LossPoint,
    Metrics,
    Parameters,
    PrimaryMetric,
    SweepPoint,
    TrainingResult,
)
from bench.records.spec import RunSpec
from bench.spectra.tracking.tracker import SpectrumTracker
from bench.training import checkpoint, memory
from bench.training.callbacks import Checkpoint, Evaluations, LossCurve, Predictions, evaluation_steps
from bench.training.environment import without_launcher
from bench.training.regularizers import nuclear_penalty

BARELY = 1e-3
"""Spectral norm of ΔW below which a layer counts as not having left its start."""
FILE = "adapter.safetensors"
DAMAGED = "the checkpoint of an interrupted attempt was damaged: this run began anew"


def fit(
    spec: RunSpec,
    task: Task,
    dataset: Dataset,
    backbone: Backbone,
    *,
    directory: Path,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> TrainingResult:
    """Train and evaluate one run; one that was interrupted goes on from the checkpoint in `directory`.

    Args:
        spec: what to run; its `lr` is set.
        directory: the run's folder, for the adapter.
        on_step: called with step and loss after every optimiser step.

    Raises:
        Diverged: a loss or an output is not finite.
        UsageError: options that do not fit this backbone or this number of devices.
    """
    # processes of several devices find each other by the variables that their worker has set
    with _quiet(), _repeatable(), without_launcher() if spec.devices == 1 else nullcontext():
        memory.reset()
        data, method, network = build(spec, task, dataset, backbone)
        runtime = spec.options.runtime
        cut = BatchSplit(batch_size=spec.batch_size, world=spec.devices, micro=runtime.micro_batch)
        curve, predictions = LossCurve(data.steps, cut.parts, on_step), Predictions()
        at = evaluation_steps(data.steps, method.evaluations)
        scored = Evaluations(at, cut.parts, lambda world: _scores(data, method, predictions, world).all)
        file = checkpoint.path(directory, world=spec.devices, parts=cut.parts)
        keeper = Checkpoint(file, parts=cut.parts, every_s=runtime.checkpoint_s)
        tracker = SpectrumTracker(spec.options.spectra, steps=data.steps, directory=directory)
        trainer = _trainer(
            spec,
            data.steps,
            cut.parts,
            method,
            [curve, predictions, tracker, keeper, *([scored] if method.evaluations else [])],
            directory,
        )
        there = file.is_file()
        whole = there and checkpoint.is_whole(file)
        trainer.fit(method, datamodule=data, ckpt_path=file if whole else None, weights_only=True)
        began = time.perf_counter()
        trainer.validate(method, datamodule=data, verbose=False)
        scores = _scores(data, method, predictions, trainer.world_size)
        eval_s = time.perf_counter() - began
        sweep = tuple(_sweep(trainer, method, data, predictions))
    method = method.cpu()
    ranks = [delta.ranks(name) for name, delta in method.deltas()]
    exported = method.export()
    if trainer.is_global_zero:
        _save(method, exported, directory, runtime)
        if runtime.save in _KEEPS_BACKBONE[method.saves_backbone]:
            runs.save(method.backbone, backbone, task.spec, directory / runs.FOLDER)
    return TrainingResult(
        metrics=scores,
        params=Parameters(
            **method.parameter_counts(), stored_bytes=sum(t.numel() * t.element_size() for t in exported.values())
        ),
        ranks=tuple(ranks),
        cost=Cost(
            steps=data.steps,
            samples=data.samples,
            train_s=round(curve.train_s, 3),
            eval_s=round(eval_s, 3),
            tracking_s=round(tracker.tracking_s, 3),
            peak_memory_bytes=memory.peak(trainer.strategy.root_device),
            cache_bytes=method.cache_bytes,
            optimizer_bytes=sum(optimizers.state_bytes(optimizer) for optimizer in trainer.optimizers),
            device=_device(trainer),
            devices=trainer.world_size,
            resumed_at=tuple(keeper.resumed),
        ),
        curve=tuple(LossPoint(step=step, loss=loss) for step, loss in curve.points),
        warnings=(
            *([DAMAGED] if there and not whole else []),
            *_barely(ranks),
            *_shares(method, cut),
            *method.warnings(),
            *tracker.warnings(),
        ),
        backbone_parameters=network,
        report=_report(method),
        spectra=tracker.result(),
        evaluations=tuple(scored.rows),
        sweep=sweep,
    )


def trained(
    spec: RunSpec, task: Task, dataset: Dataset, backbone: Backbone, *, callbacks: Sequence[Callback] = ()
) -> tuple[Method, Any]:
    """Train a run under callbacks and return the method, on the CPU, and its data module; nothing is written."""
    with _quiet(), _repeatable(), without_launcher():
        data, method, _ = build(spec, task, dataset, backbone)
        cut = BatchSplit(batch_size=spec.batch_size, world=1, micro=spec.options.runtime.micro_batch)
        _trainer(spec, data.steps, cut.parts, method, [*callbacks]).fit(method, datamodule=data)
    return method.cpu(), data


def build(spec: RunSpec, task: Task, dataset: Dataset, backbone: Backbone) -> tuple[Any, Method, int]:
    """The DataModule, the adapted method and the backbone's parameters before that, the same at every call."""
    seed_everything(spec.seed, workers=True, verbose=False)
    data: Any = task.datamodule(dataset, backbone, spec)
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
    method.adapt(data.first_batch())
    if options.penalty.nuclear:
        method.penalties.append(nuclear_penalty(method, options.penalty))
    if not any(p.requires_grad for p in method.parameters()):
        raise UsageError(
            f"{spec.method} has nothing to train here", "head.trainable=false freezes the head", "Let the head train."
        )
    # transformers hands out networks in evaluation mode, and Lightning keeps modes
    return data, method.train(), parameters


_KEEPS_BACKBONE: dict[str, tuple[str, ...]] = {"never": (), "asked": ("all",), "always": ("adapter", "all")}
"""Values of `runtime.save` with which a method's trained network is kept."""


def _report(method: Method) -> dict[str, Any]:
    """Results of method and network beside the scores."""
    network = method.backbone
    return {**(network.report(method.head) if isinstance(network, Reports) else {}), **method.report()}


def _trainer(
    spec: RunSpec, steps: int, parts: int, method: Method, callbacks: list[Any], directory: Path | None = None
) -> Trainer:
    several = "ddp_find_unused_parameters_true" if method.skips_parameters else "ddp"
    return Trainer(
        accelerator=spec.accelerator,
        devices=spec.devices,
        strategy=several if spec.devices > 1 else "auto",
        plugins=[LightningEnvironment()],  # instead of the cluster's, which starts no processes
        default_root_dir=directory,
        precision=spec.precision,
        max_steps=steps,
        max_epochs=1,  # the loader holds the whole run: its own order of batches, over all of the data's epochs
        accumulate_grad_batches=parts,
        gradient_clip_val=method.optim.clip or None,
        # `Evaluations` chooses among the batches; without evaluations dev is scored only after the end
        val_check_interval=1 if method.evaluations else None,
        check_val_every_n_epoch=None if method.evaluations else 10**9,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _scores(data: Any, method: Method, predictions: Predictions, world: int) -> Metrics:
    """Every metric on every split; the primary one on the first."""
    task = method.task
    own = method.primary
    names, higher = (own, method.higher_is_better) if own else (task.primary, task.higher_is_better)
    every: dict[str, dict[str, float]] = {}
    sizes: list[int] = []
    for i, split in enumerate(data.splits):
        outputs, labels = predictions.gathered(i, world)
        every[split] = method.evaluate(outputs, labels)
        sizes.append(len(labels))
    first = data.splits[0]
    primary = PrimaryMetric(
        name="+".join(names),
        value=metrics.mean([every[first][name] for name in names]),
        split=first,
        higher_is_better=higher,
        n=sizes[0],
        of="method" if own else "task",
    )
    return Metrics(primary=primary, all=every)


def _sweep(trainer: Trainer, method: Method, data: Any, predictions: Predictions) -> Iterator[SweepPoint]:
    """Scores under every setting of `Method.sweep`."""
    for setting in method.sweep():
        trainer.validate(method, datamodule=data, verbose=False)
        scores = _scores(data, method, predictions, trainer.world_size)
        yield SweepPoint(**setting, primary=scores.primary.value, metrics=scores.all)


def _save(method: Method, exported: dict[str, torch.Tensor], directory: Path, runtime: RuntimeConfig) -> None:
    """Write what was trained, where that is asked, with the head, a frozen one too."""
    if runtime.save == "none" or (runtime.save == "adapter" and not method.saves_adapter):
        return
    tensors = {**{f"head.{name}": tensor for name, tensor in method.head.state_dict().items()}, **exported}
    with replacing(directory / FILE) as temporary:
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary)


def _barely(ranks: Sequence[LayerRank]) -> list[str]:
    still = [r for r in ranks if r.norm < BARELY and r.nominal]  # a method may take a layer's rank away
    if not still:
        return []
    least = min(r.norm for r in still)
    return [f"ΔW barely left its start in {len(still)} of {len(ranks)} layers: ‖ΔW‖₂ < {BARELY:g}, least {least:.1e}"]


def _shares(method: Method, cut: BatchSplit) -> list[str]:
    """What makes a batch in parts another experiment: statistics of the batch, and masks drawn for it."""
    if cut.world * cut.parts == 1:
        return []
    found = ["BatchNorm takes the statistics"] if moving_statistics(method.backbone) else []
    adds = method.head_config.dropout or getattr(method.config, "dropout", 0)  # of an update or adapter: a function's
    found += ["dropout draws the masks"] if adds or drops(method) else []
    return [
        f"{one} of a part of each batch: on other devices or in other micro batches this run differs" for one in found
    ]


def _device(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def _repeatable() -> Generator[None]:
    """Convolutions add up in one order on a GPU too: there cuDNN's fastest are not the same from run to run."""
    cudnn = torch.backends.cudnn
    before, cudnn.deterministic = cudnn.deterministic, True
    try:
        yield
    finally:
        cudnn.deterministic = before


@contextmanager
def _quiet() -> Generator[None]:
    """Lightning's advice on loaders and loggers is for people who write them."""
    loggers = [
        logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(lightning|torchmetrics)\..*")
            warnings.filterwarnings("ignore", message=r".*(isinstance\(treespec|LeafSpec|lr_scheduler\.step).*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


__all__ = ["FILE", "build", "fit", "trained"]
