"""Embedded GLUE: nine small generated tasks with GLUE's schemas and labels that are exact by construction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from bench.records.data import Example
from tasks.glue.generated.draw import Draw, Label, Pair

__all__ = ["TASKS", "VERSION", "generate"]

VERSION = "1"  # changed whenever a byte of the generated data changes; also the seed

Shares = Sequence[tuple[Label, float]]
HALVES: Shares = ((0, 0.5), (1, 0.5))
THIRDS: Shares = ((0, 1 / 3), (1, 1 / 3), (2, 1 / 3))
SCORES: Shares = tuple((step / 4, 1 / 19) for step in (0, *range(2, 19), 20))
TRAIN, DEV = 2000, 256

TASKS: Mapping[str, Mapping[str, tuple[int, Shares]]] = {
    "cola": {"train": (TRAIN, ((1, 0.7), (0, 0.3))), "dev": (DEV, ((1, 0.7), (0, 0.3)))},
    "sst2": {"train": (TRAIN, ((1, 0.55), (0, 0.45))), "dev": (DEV, ((1, 0.51), (0, 0.49)))},
    "mrpc": {"train": (TRAIN, ((1, 0.67), (0, 0.33))), "dev": (DEV, ((1, 0.68), (0, 0.32)))},
    "qqp": {"train": (TRAIN, ((0, 0.63), (1, 0.37))), "dev": (DEV, ((0, 0.63), (1, 0.37)))},
    "stsb": {"train": (TRAIN, SCORES), "dev": (DEV, SCORES)},
    "mnli": {"train": (TRAIN, THIRDS), "dev_matched": (DEV, THIRDS), "dev_mismatched": (DEV, THIRDS)},
    "qnli": {"train": (TRAIN, HALVES), "dev": (DEV, HALVES)},
    "rte": {"train": (TRAIN, HALVES), "dev": (DEV, ((0, 0.53), (1, 0.47)))},
    "wnli": {"train": (635, ((0, 0.51), (1, 0.49))), "dev": (71, ((0, 0.56), (1, 0.44)))},
}
"""Size and label shares of every split, near the originals."""


def generate(task: str) -> dict[str, list[Example]]:
    """Generate the examples of one task by split, `train` first: the same bytes on every machine.

    No input appears twice, so no input can have two labels and no split can leak into another. Labels follow the
    Hugging Face order: cola 1 acceptable; sst2 1 positive; mrpc, qqp 1 paraphrase; stsb a score in 0..5; mnli
    0 entailment, 1 neutral, 2 contradiction; qnli and rte 0 entailment, 1 not; wnli 1 the pronoun was resolved rightly.
    """
    module = import_module(f"tasks.glue.generated.{task}")
    used: set[Pair] = set()
    splits: dict[str, list[Example]] = {}
    for split, (size, shares) in TASKS[task].items():
        draw_pair = module.draw_mismatched_pair if split == "dev_mismatched" else module.draw_pair
        draw = Draw(f"{VERSION}/{task}/{split}")
        counts = [round(share * size) for _, share in shares]
        counts[0] += size - sum(counts)  # the first label takes what rounding leaves
        labels = [label for (label, _), count in zip(shares, counts, strict=True) for _ in range(count)]
        splits[split] = [_new_example(draw, draw_pair, label, used) for label in draw.several(labels, size)]
    return splits


def _new_example(draw: Draw, draw_pair: Callable[[Draw, Label], Pair], label: Label, used: set[Pair]) -> Example:
    while True:
        text, second = draw_pair(draw, label)
        pair = _sentence(text), None if second is None else _sentence(second)
        if pair not in used and pair[0] != pair[1]:
            used.add(pair)
            return Example(*pair, label)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")
