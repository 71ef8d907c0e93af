"""The model card of an exported folder: README.md as the Hugging Face hub reads it, with the lines that load it.

Names of data, classes and backbones are a stranger's text: they stand in code spans and in JSON, and no path of the
machine that trained it is written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import yaml

from bench.core.text import dump_json, format_count, format_score, printable, without_secrets

if TYPE_CHECKING:
    from bench.deploy.loaders import Loader
    from bench.deploy.restore import FinishedRun

SHOWN = 12
"""Classes that the usage names."""
PATH = re.compile(r"(?:^|(?<=[:=,]))(?:~[^/]*|\.{1,2})?/(?:[^/:=,]+/)*")
"""The folders of a path that begins at the root, at home or at a dot, within a word of a command."""
PATH_FLAGS = ("--out", "--data-dir")
"""Flags of a command that say where something lies on the machine."""


def text(run: FinishedRun, form: str, loader: Loader, difference: float | None) -> str:
    """Return the whole card; arguments are as for `bench.deploy.export`."""
    record = run.record
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(run, loader), sort_keys=False, allow_unicode=True)}---",
        f"# {_code(record.task.name)} with {_code(record.spec.method)}",
        _summary(run, form),
        "## Load it",
        *_usage(run, loader, difference),
        "## Results",
        _table(("split", "examples", "metric", "value"), [*_scores(run)]),
        "## How it was trained",
        _table(("what", "value"), [*_facts(run)]),
        "The command of lowrank-bench that repeats the run:",
        f"```\n{_command(record.provenance.command)}\n```" if record.provenance.command else "It was a trial.",
        *_cautions(record.warnings),
        "## Licence\n\nNone is stated. Choose one that goes with those of the base model and of the data.",
    ]
    return "\n\n".join(parts) + "\n"


def show_difference(difference: float) -> str:
    """Write the largest difference of outputs: `5.4e-07`, or `0`."""
    return f"{difference:.1e}" if difference else "0"


def _front_matter(run: FinishedRun, loader: Loader) -> dict[str, object]:
    record, primary = run.record, run.record.metrics.primary
    kind = "image-classification" if run.task.modality == "image" else "text-classification"
    metrics = [{"type": name, "value": value} for name, value in record.metrics.all[primary.split].items()]
    result = {
        "task": {"type": kind},
        "dataset": {"name": printable(record.task.name), "type": printable(record.task.name), "split": primary.split},
        "metrics": metrics,
    }
    base = {"base_model": loader.base} if "/" in loader.base and not _is_path(loader.base) else {}
    return {
        **base,
        "library_name": loader.library,
        "pipeline_tag": kind,
        "tags": ["lowrank-bench", *([loader.library] if loader.library == "peft" else []), record.spec.method],
        "metrics": [metric["type"] for metric in metrics],
        "model-index": [{"name": f"{record.spec.method}-{record.run_id}", "results": [result]}],
    }


def _summary(run: FinishedRun, form: str) -> str:
    backbone = _code(run.record.backbone.name)
    what = {
        "peft": f"What training added to {backbone}, as an adapter of `peft`, with its head.",
        "merged": f"{backbone} with what training added merged in, and its head.",
        "adapter": f"The bottleneck adapters that training added to {backbone}, with their head.",
    }[form]
    hashed = f"The content of {backbone} that it was trained on has the sha256 `{run.record.backbone.weights_hash}`."
    return f"{what} {hashed}"


def _usage(run: FinishedRun, loader: Loader, difference: float | None) -> Iterator[str]:
    if not loader.code:
        yield (
            f"{_code(run.record.backbone.name)} is random at its start: only lowrank-bench builds it from its options "
            "and the seed of the run, and these weights belong to it. `bench export RUN --merged DIR` writes a whole "
            "network."
        )
        return
    yield f"```python\n{loader.text()}```"
    yield from _example(run)
    if loader.architecture and loader.library == "transformers":
        call = 'pipeline("text-classification", DIR, truncation=True)'
        yield f"`{call}` of transformers loads this folder too; it gives the same probabilities."
    if difference is not None:
        most = show_difference(difference)
        yield f"These outputs and those of the run differed by at most {most} on made-up examples."


def _example(run: FinishedRun) -> Iterator[str]:
    example = "[image]" if run.task.modality == "image" else '["A text."]'
    if run.task.modality == "image":
        yield "`outputs` takes images of Pillow."
    elif run.record.source.reading.get("text_pair") is not None:
        example = '["A text."], ["A second text."]'
    if not run.labels:
        yield f"`outputs({example})` is the number that is predicted."
        return
    names = dump_json([*run.labels[:SHOWN]], indent=None) + (" …" if len(run.labels) > SHOWN else "")
    if run.spec.options.head.loss == "squared" and not run.task.multilabel:
        yield f"The class is the largest of `outputs({example})`. Classes:"
    else:
        function = "sigmoid()" if run.task.multilabel else "softmax(-1)"
        yield f"`outputs({example}).{function}` has a probability for each class:"
    yield f"```json\n{names}\n```"


def _scores(run: FinishedRun) -> Iterator[Sequence[str]]:
    metrics, sizes = run.record.metrics, run.record.source.evaluation_examples
    for split, values in metrics.all.items():
        for name, value in values.items():
            primary = split == metrics.primary.split and name in metrics.primary.name.split("+")
            shown = format_score(value, metrics.primary.higher_is_better)
            yield split, str(sizes.get(split, "")), name, f"**{shown}**" if primary else shown


def _facts(run: FinishedRun) -> Iterator[Sequence[str]]:
    record = run.record
    options = ", ".join(f"{key}={value}" for key, value in record.spec.options.method.items() if value is not None)
    yield "data", f"{_code(record.task.name)}, {record.source.train_examples:,} examples to train"
    yield "sha256 of the data", f"`{record.source.data_hash}`"
    yield "method", f"{_code(record.spec.method)}: {_code(options or 'no options')}"
    trained, total = record.params.trainable, record.params.total
    yield "trained parameters", f"{format_count(trained)} of {format_count(total)}"
    if record.ranks:
        used, nominal = (fmean(getattr(rank, name) for rank in record.ranks) for name in ("effective", "nominal"))
        yield "rank of the update", f"{used:.1f} used of {nominal:.0f}, means over {len(record.ranks)} layers"
    if truncation := getattr(record, "truncation", None):
        needed = "more than was tried" if truncation.rank_needed is None else str(truncation.rank_needed)
        yield "rank that the score needs", f"{needed}, within a standard error on {truncation.n} examples"
    yield "steps, batch size", f"{record.cost.steps:,}, {record.spec.batch_size}"
    yield "learning rate", f"{record.lr:g}"
    yield "seed", str(record.spec.seed)
    yield "run", f"`{record.run_id}`, {record.provenance.created[:10]}"
    versions = record.provenance.packages
    yield "versions", ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions)


def _cautions(warnings: Sequence[str]) -> list[str]:
    return ["## What to be careful of", "\n".join(f"- {_code(line)}" for line in warnings)] if warnings else []


def _command(command: Sequence[str]) -> str:
    """Return a command without the places of files on the machine that ran it."""
    words: list[str] = []
    flag = ""
    for word in command:
        if flag not in PATH_FLAGS and word not in PATH_FLAGS:
            words.append(PATH.sub("", word) if word != "/" else word)
        elif flag == "--data-dir":
            words += ["--data-dir", "DIR"]
        flag = word
    return printable(without_secrets(shlex.join(words)))


def _is_path(base: str) -> bool:
    return base.startswith(("/", "~", "."))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(value: str) -> str:
    """Write text of others as a code span, in which nothing has a meaning."""
    return f"`{printable(without_secrets(value)).replace('`', chr(39)).strip() or ' '}`"
