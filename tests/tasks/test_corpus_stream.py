"""A corpus larger than memory: read, hashed, tokenised and batched in a process that may grow by a fraction of it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from bench.records.data import DataRequest, Example
from tasks.corpus.task import TextCorpus
from tasks.text.tokens import tokenise

ROOT = Path(__file__).parents[2]
CODE = """
import json, sys, threading, time
import numpy as np
from transformers import AutoTokenizer
from bench.records.data import DataRequest
from tasks.text.tokens import tokenise
from tasks.corpus.task import CorpusConfig, TextCorpus

file, small, model = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model)

def use(path):
    dataset = TextCorpus(path).open(DataRequest(config=CorpusConfig(max_length=16, unit="line")))
    tokens = tokenise(dataset.train, tokenizer, key=dataset.hash, max_length=16)
    order = np.random.default_rng(0).permutation(len(tokens.labels))
    taken = tokens.take(order)
    assert sum(len(taken.row(i)[0]) for i in range(1000)) == 16 * 1000
    return len(dataset.train)

def anonymous():
    # pages of mapped files can be dropped at any time, so they are not counted
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) * 1024

peak, running = [0], True

def watch():
    while running:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
use(small)  # imports, thread pools and buffers exist now
before, peak[0] = peak[0], 0
rows = use(file)
print(json.dumps({"rows": rows, "grown": peak[0] - before}))
"""


def generated(file: Path, size: int) -> Path:
    """Different lines of 50 to 250 words, about `size` bytes."""
    draw = random.Random(0)
    words = ["".join(draw.choices("αβγδεζηθικλμνξοπρστυφχψω", k=draw.randint(2, 9))) for _ in range(1000)]
    lines = [" ".join(draw.choices(words, k=draw.randint(50, 250))) for _ in range(1000)]
    with file.open("w", encoding="utf-8") as stream:
        for i in range(size // (sum(len(line.encode()) for line in lines) // len(lines))):
            stream.write(f"{i} {lines[i % len(lines)]}\n")
    return file


def growth(tmp_path: Path, model: Path, size: int) -> tuple[int, int]:
    """Rows, and bytes by which the peak of a process grows from 2 MB of text to that many bytes."""
    large, small = generated(tmp_path / "large.txt", size), generated(tmp_path / "small.txt", 2 << 20)
    environment = {
        **os.environ,
        "LOWRANK_BENCH_CACHE": str(tmp_path / "cache"),
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_ARENA_MAX": "1",
    }
    command = [sys.executable, "-c", CODE, str(large), str(small), str(model)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    found = json.loads(out.stdout)
    return found["rows"], found["grown"]


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")


@linux
def test_memory_is_a_fraction_of_the_text(tmp_path: Path, tiny_bert: Path) -> None:
    rows, grown = growth(tmp_path, tiny_bert, 24 << 20)
    assert rows > 10_000
    assert grown < 8 << 20, f"{grown / 2**20:.1f} MiB"


@linux
@pytest.mark.slow
def test_memory_hardly_grows_with_200_megabytes(tmp_path: Path, tiny_bert: Path) -> None:
    rows, grown = growth(tmp_path, tiny_bert, 200 << 20)
    assert rows > 100_000
    assert grown < 20 << 20, f"{grown / 2**20:.1f} MiB; places, lengths and order take about 60 bytes a row"


def test_streamed_tokens_are_those_of_a_list(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "a.txt"
    file.write_text("\n\n".join(f"text {i}\n" + "word " * (i % 37) for i in range(300)))
    dataset = TextCorpus(str(file)).open(DataRequest())
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    streamed = tokenise(dataset.train, tokenizer, key="streamed", max_length=32)  # type: ignore[arg-type]
    listed = [Example(row.text, None, 0) for row in dataset.train]  # type: ignore[attr-defined]
    want = tokenise(listed, tokenizer, key="listed", max_length=32)
    for name in ("ids", "types", "starts", "lengths", "labels"):
        assert np.array_equal(getattr(streamed, name), getattr(want, name))
    assert len(want.labels) == len(dataset.train) == 270
