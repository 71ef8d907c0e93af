"""A BERT of any size that is built: its parameters, pooling, seed and words."""

from __future__ import annotations

import pytest
import torch
from networks import build, count, found

from bench.core.errors import EnvironmentProblem, UsageError


def test_a_bert_of_any_size():
    network = build("bert", (), layers=2, hidden=32, heads=4)
    words, width, positions = 30522, 32, 512
    embeddings = (words + positions + 2) * width + 2 * width
    assert count(network) == embeddings + 2 * (12 * width**2 + 13 * width)
    assert len(network.blocks) == 2
    ids = torch.randint(5, 100, (2, 6))
    padded, mask = (
        torch.cat([ids, torch.zeros_like(ids)], 1),
        torch.cat([torch.ones_like(ids), torch.zeros_like(ids)], 1),
    )
    network.eval()
    tokens = network.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(network(padded, mask), tokens.mean(1), atol=1e-6, rtol=1e-5)


def test_a_bert_follows_the_seed_alone():
    first, again, other = (
        build("bert", (), seed=seed, layers=1, hidden=16, heads=2).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    name = "model.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(first[name], other[name])


def test_a_bert_takes_the_words_of_another_tokenizer(tiny_bert, tmp_path):
    from transformers import AutoTokenizer

    size = {"layers": 1, "hidden": 16, "heads": 2}
    network = build("bert", (), tokenizer=str(tiny_bert), **size)
    words = AutoTokenizer.from_pretrained(tiny_bert)
    assert network.model.embeddings.word_embeddings.num_embeddings == len(words)
    theirs, ours = found("bert", **size, tokenizer=str(tiny_bert)), found("bert", **size)
    assert theirs.weights_hash != ours.weights_hash
    assert theirs.config == ours.config, "where it lies is no part of the identity"
    with pytest.raises(EnvironmentProblem, match="has no tokenizer"):
        found("bert", tokenizer=str(tmp_path))


def test_heads_must_divide_the_width_of_a_bert():
    with pytest.raises(UsageError, match=r"heads=3 does not divide backbone\.hidden=16"):
        build("bert", (), layers=1, hidden=16, heads=3)
