"""Large tables: rows are read one at a time, and tokenised in bounded memory."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from table_files import write

from tasks.io.readers import open_table


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rows_are_read_one_at_a_time(tmp_path: Path, suffix: str) -> None:
    data = [(f"{i} " * 80, i % 2) for i in range(10_000)]
    file = write(tmp_path / f"mine{suffix}", data)
    table = open_table(file)
    next(table.rows(["text"]))  # imports
    tracemalloc.start()
    try:
        assert sum(1 for _ in table.rows(["text", "label"])) == len(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < sum(len(text) for text, _ in data) / 2


MEMORY = """
import resource, sys
from pathlib import Path
from transformers import AutoTokenizer
from bench.records.data import DataRequest
from tasks.text.tokens import tokenise
from tasks.table.task import Table

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
tokenizer(["warm up"] * 100)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = Table(sys.argv[2]).open(DataRequest())
tokens = tokenise(dataset.train, tokenizer, key=dataset.hash, max_length=128)
print(len(dataset.train), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_200_000_rows_are_read_and_tokenised_in_bounded_memory(tmp_path: Path, tiny_bert: Path, suffix: str) -> None:
    draw = random.Random(0)
    words = ("good", "bad", "odd", "film", "it", "was")
    data = [(" ".join(draw.choices(words, k=draw.randint(4, 12))) + f', "{i}"\n', i % 3) for i in range(200_000)]
    file = write(tmp_path / f"mine{suffix}", data)
    out = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tiny_bert), str(file)], capture_output=True, text=True, check=True
    )
    train, kilobytes = map(int, out.stdout.split())
    assert train == 180_000
    assert kilobytes < 500_000
