"""Writes a finished run as a folder that other libraries load, and holds its outputs against the run's before that."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from bench.api.peft import NOTE, write_json
from bench.core.errors import CheckFailed, EnvironmentProblem, UsageError
from bench.core.files import new_folder, read_object
from bench.deploy import Form, card
from bench.deploy.loaders import Loader
from bench.deploy.restore import WORDS, FinishedRun
from bench.deploy.text import Head, base_name, check_modality

if TYPE_CHECKING:
    from bench.api.method import Method

Write = Callable[[Path], "Loader | None"]
"""Fills a folder; None where this form of it does not exist."""
EQUAL = 1e-5
"""Largest difference of outputs, relative to the largest output, that rounding makes: float32 in another order."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        note: content of bench.json.
        loader: how it is loaded.
        difference: largest difference between outputs loaded from the folder and the run's; None where nothing but
            this suite builds the network that the adapter belongs to.
    """

    note: dict[str, object]
    loader: Loader
    difference: float | None


def export(run: FinishedRun, path: Path, form: Form, base: str | None = None) -> Exported:
    """Write a folder with weights, tokenizer, bench.json and README.md, completely or not at all.

    Args:
        form: peft (the adapter as peft's), merged (a whole network), adapter (bottlenecks with a loader).
        base: what the backbone is called where the folder will be loaded; None: a hub id, or else its folder here.

    Raises:
        UsageError: the run has no such form, or `path` is a folder with something in it.
        CheckFailed: what was written computes something else; nothing stays.
    """
    check_modality(run)
    tensors = run.tensors()
    method = run.method()
    if form == "adapter" and not method.bottlenecks:
        known = f"{run.spec.method} trains weights, which have better known forms"
        raise UsageError("--adapter is for bottleneck adapters", known, "Use --peft DIR or --merged DIR.")
    head = _head(run, method)
    expected = _expected(run, method)
    ways = _ways(run, method, form, tensors, head, base)
    with new_folder(path, f"--{form}") as folder:
        with warnings.catch_warnings():  # of transformers about its own code
            warnings.simplefilter("ignore")
            loader, difference = _write(ways, folder, expected)
        note = _note(run, form, loader, difference)
        _name_base(folder, loader, run)
        write_json(folder / NOTE, note)
        (folder / "README.md").write_text(card.text(run, form, loader, difference), encoding="utf-8")
    return Exported(note=note, loader=loader, difference=difference)


def _ways(
    run: FinishedRun, method: Method, form: Form, tensors: dict[str, Tensor], head: Head, base: str | None
) -> Iterable[Write]:
    """Return the ways to write this form, the plainest first; errors are those of `export`."""
    if run.task.modality == "image":
        from bench.deploy import images

        if form == "merged":
            return [images.merged(run, cast(Any, method.merged()), head)]
        if form == "peft":
            return [images.peft(run, tensors, head, base)]
        channels = any(getattr(module, "channels", False) for module in method.modules())
        return [images.bottlenecks(run, tensors, head, base, channels=channels)]
    from bench.deploy import text

    name = base or base_name(run)
    if form == "merged":
        return text.merged(run, cast(Any, method.merged()), head)
    if form == "peft":
        return text.peft(run, tensors, head, name)
    if not run.backbone.pretrained:
        known = f"{run.backbone.name} is built from its options and a seed by lowrank-bench alone"
        raise UsageError("an adapter of a random network is of no use", known, "Use `bench predict` with this run.")
    return [text.bottlenecks(run, cast(Any, method.backbone), tensors, head, name)]


def _write(ways: Iterable[Write], folder: Path, expected: Sequence[tuple[tuple[Any, ...], Tensor]]) -> Any:
    """Fill the folder in the first way that computes what the run does; return its loader and the difference."""
    found: list[float] = []
    for write in ways:
        for file in folder.iterdir():
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        loader = write(folder)
        if loader is None:
            continue
        if not loader.code:
            return loader, None
        difference, largest = _difference(loader, folder, expected)
        found.append(difference)
        if difference <= EQUAL * max(1.0, largest):
            return loader, difference
    raise CheckFailed(
        "what was written does not compute what the run did, so nothing is written",
        f"outputs differ by {', '.join(f'{one:.1e}' for one in found)}",
        "Use `bench predict` with this run, and report it with the method and the backbone.",
    )


@torch.inference_mode()
def _difference(
    loader: Loader, folder: Path, expected: Sequence[tuple[tuple[Any, ...], Tensor]]
) -> tuple[float, float]:
    """Return the largest difference between outputs, and the largest output."""
    try:
        outputs = loader.load(str(folder))
    except ImportError as error:
        raise EnvironmentProblem(f"{loader.library} is missing", str(error), "pip install it.") from error
    pairs = [(outputs(*inputs).double(), wanted) for inputs, wanted in expected]
    if any(one.shape != wanted.shape for one, wanted in pairs):
        return float("inf"), 1.0
    return (
        max(float((one - wanted).abs().max()) for one, wanted in pairs),
        max(float(wanted.abs().max()) for _, wanted in pairs),
    )


@torch.inference_mode()
def _expected(run: FinishedRun, method: Method) -> list[tuple[tuple[Any, ...], Tensor]]:
    """Return arguments of a loader's `outputs`, with what the run computes for them (N, outputs), float64."""
    factor, shift = run.scale
    found: list[tuple[tuple[Any, ...], Tensor]] = []
    for arguments, inputs in _images(run) if run.task.modality == "image" else _texts(run):
        outputs = method(inputs).double().reshape(len(arguments[0]), -1)
        found.append((arguments, outputs if run.task.num_classes else outputs * factor + shift))
    return found


def _texts(run: FinishedRun) -> list[tuple[tuple[Any, ...], dict[str, Tensor]]]:
    """Texts and pairs of texts, one of them longer than the limit."""
    tokenizer: Any = run.backbone.tokenizer()
    limit = run.spec.options.task.to_json()["max_length"]
    long = " ".join(WORDS) + " a b c" * 200
    examples = ([*WORDS, long],), ([*WORDS], [*reversed(WORDS)])
    known = ("input_ids", "attention_mask", "token_type_ids")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token  # masked, so any token will do
    found: list[tuple[tuple[Any, ...], dict[str, Tensor]]] = []
    for texts in examples:
        read = tokenizer(
            *texts, truncation=True, padding=True, max_length=limit, padding_side="right", return_tensors="pt"
        )
        found.append((texts, {name: read[name] for name in known if name in read}))
    return found


def _images(run: FinishedRun) -> list[tuple[tuple[Any, ...], dict[str, Tensor]]]:
    """Four images of random pixels."""
    from PIL import Image

    channels, height, width = run.task.shape
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4, height, width, channels), generator=generator, dtype=torch.uint8)
    pictures = [Image.fromarray((one if channels == 3 else one[..., 0]).numpy()) for one in pixels]
    reading = run.record.source.reading
    mean, std = (torch.tensor(reading[name], dtype=torch.float32).view(-1, 1, 1) for name in ("mean", "std"))
    x = (pixels.movedim(-1, 1).float() / 255 - mean) / torch.where(std == 0, 1.0, std)
    return [((pictures,), {"x": x})]


def _head(run: FinishedRun, method: Method) -> Head:
    weight, bias = method.linear_head()
    if run.task.num_classes:
        return Head(weight, bias)
    factor, shift = run.scale
    return Head((weight.double() * factor).to(weight), (bias.double() * factor + shift).to(bias))


def _name_base(folder: Path, loader: Loader, run: FinishedRun) -> None:
    """Write the name of the backbone into peft's configuration, in place of its folder on this machine."""
    file = folder / "adapter_config.json"
    if file.is_file() and loader.base:
        config = read_object(file, "Export it again.")
        revision = run.spec.options.backbone.revision
        pinned = {"revision": revision} if "/" in loader.base and revision != "main" else {}
        write_json(file, {**config, "base_model_name_or_path": loader.base, **pinned})


def _note(run: FinishedRun, form: Form, loader: Loader, difference: float | None) -> dict[str, object]:
    record, spec = run.record, run.spec
    return {
        "run_id": record.run_id,
        "form": form,
        "loads_with": loader.library,
        "architecture": loader.architecture or None,
        "method": spec.method,
        "task": record.task.to_json(),
        "id2label": {str(number): label for number, label in enumerate(run.labels)},
        "backbone": record.backbone.to_json(),
        "base": {
            "name": loader.base or run.backbone.name,
            "revision": spec.options.backbone.revision,
            "weights_hash": record.backbone.weights_hash,
        },
        "pooling": run.pooling if run.task.modality == "text" else None,
        "max_length": record.spec.options.task.get("max_length"),  # of texts alone
        "precision": spec.precision,
        "metrics": record.metrics.all,
        "largest_difference": difference,
    }
