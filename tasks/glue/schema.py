"""The nine GLUE tasks as a table: folders, columns, labels in the Hugging Face `glue` order, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """How one GLUE task is stored and scored."""

    folder: str  # its name in the layout of the GLUE download script
    tsv: tuple[str, ...]  # columns of the TSV files: the text, the second text if there is one, the label
    hub: tuple[str, ...]  # the same columns as the Hugging Face dataset names them
    labels: tuple[str, ...]  # class names; the index is the label. Empty for a score from 0 to 5
    metrics: tuple[str, ...] = ("accuracy",)
    primary: tuple[str, ...] = ()  # metrics whose mean is the primary value; empty: all of them
    note: str = ""  # a caveat shown beside scores
    header: tuple[str, ...] | None = None  # column names where the TSV files have no header line
    evaluation: tuple[str, ...] = ("dev",)  # the primary split first
    short_rows: bool = False  # whether the published files hold rows with too few columns, which everyone leaves out

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits that are read, train first."""
        return ("train", *self.evaluation)


_PAIR = ("sentence1", "sentence2", "label")
_NLI = ("entailment", "not_entailment")

SCHEMAS: Mapping[str, Schema] = {
    "cola": Schema(
        folder="CoLA",
        header=("source", "label", "star", "sentence"),
        tsv=("sentence", "label"),
        hub=("sentence", "label"),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews", "accuracy"),
        primary=("matthews",),
    ),
    "sst2": Schema(
        folder="SST-2", tsv=("sentence", "label"), hub=("sentence", "label"), labels=("negative", "positive")
    ),
    "mrpc": Schema(
        folder="MRPC",
        tsv=("#1 String", "#2 String", "Quality"),
        hub=_PAIR,
        labels=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
    ),
    "stsb": Schema(
        folder="STS-B", tsv=("sentence1", "sentence2", "score"), hub=_PAIR, labels=(), metrics=("pearson", "spearman")
    ),
    "qqp": Schema(
        folder="QQP",
        tsv=("question1", "question2", "is_duplicate"),
        hub=("question1", "question2", "label"),
        labels=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        short_rows=True,
    ),
    "mnli": Schema(
        folder="MNLI",
        tsv=("sentence1", "sentence2", "gold_label"),
        hub=("premise", "hypothesis", "label"),
        labels=("entailment", "neutral", "contradiction"),
        note="primary: the matched half",
        evaluation=("dev_matched", "dev_mismatched"),
    ),
    "qnli": Schema(
        folder="QNLI", tsv=("question", "sentence", "label"), hub=("question", "sentence", "label"), labels=_NLI
    ),
    "rte": Schema(folder="RTE", tsv=_PAIR, hub=_PAIR, labels=_NLI),
    "wnli": Schema(
        folder="WNLI",
        tsv=_PAIR,
        hub=_PAIR,
        labels=("not_entailment", "entailment"),
        note="in the original, dev repeats sentences of train with the opposite label: few methods beat the majority",
    ),
}
