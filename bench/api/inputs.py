"""New examples of a task, without labels: what `bench predict` reads, and hands to a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from bench.api.task import TaskSpec
from bench.config.options import Config

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

WINDOW = 1024
"""Rows that are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class InputRequest:
    """What is to be read, and how the run read what it was trained on.

    Attributes:
        places: files or folders, as given.
        config: of the class `Task.InputConfig`: `--set task.key=value`.
        keep: columns that are copied into the output.
        task: of the run.
        reading: as in `Dataset.reading`.
        max_length: tokens of a text, special ones included.
        tokenizer: loads that of the backbone, where it reads texts.
    """

    places: tuple[Path, ...]
    config: Config
    on_bad: Literal["error", "skip"]
    keep: tuple[str, ...]
    task: TaskSpec
    reading: Mapping[str, Any]
    max_length: int
    tokenizer: Callable[[], PreTrainedTokenizerBase]


class NewExamples(NamedTuple):
    """Some examples in the order of their file.

    Attributes:
        names: number of each row from 0, or name of each image.
        kept: of each, its values in the columns to keep, as text.
        lengths: (N,) tokens, or zeros: examples of one length share a batch.
        collate: numbers (B,) of some of them → inputs of the network, by name.
    """

    names: Sequence[int | str]
    kept: Sequence[Sequence[str]]
    lengths: np.ndarray
    collate: Callable[[np.ndarray], dict[str, Tensor]]


class NewInputs(Protocol):
    """Examples to predict, read twice: once to check all of them, and once to predict."""

    name: str
    """Of the column that tells examples apart: `row` or `image`."""

    def check(self) -> None:
        """Read everything, and keep nothing.

        Raises:
            DataProblem: an example is bad and not to be left out, or none is good; the error names file and line.
        """
        ...

    def windows(self) -> Iterator[NewExamples]:
        """Yield the good examples, some at a time."""
        ...

    def notes(self) -> list[str]:
        """Return lines that the user must see, such as how many were left out."""
        ...

    @property
    def left_out(self) -> int:
        """Examples that are bad."""
        ...
