"""Masking: the shares BERT takes, nothing special ever, and choices that depend on an example's own numbers alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare
from torch import Tensor

from bench.core.random import uniform
from methods.mlm.method import DRAWS, mask_tokens, ordinary_ids

CLS, SEP, PAD, UNK, MASK = SPECIAL = (1, 2, 0, 3, 7)
VOCABULARY = 40


def texts(rows: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask: start, ordinary or unknown tokens, separator, padding, as a tokenizer gives them."""
    draw = np.random.default_rng(seed)
    ids, mask = np.full((rows, width), PAD), np.zeros((rows, width), dtype=np.int64)
    ordinary = ordinary_ids(SPECIAL, VOCABULARY).numpy()
    for i in range(rows):
        n = int(draw.integers(2, width - 1))
        ids[i, : n + 2] = [CLS, *draw.choice([*ordinary, UNK], n), SEP]
        mask[i, : n + 2] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def masked(ids: Tensor, mask: Tensor, index: np.ndarray | None = None, **changes: float) -> tuple[Tensor, Tensor]:
    index = np.arange(len(ids)) if index is None else index
    draws = torch.from_numpy(uniform(3, "mask", 5, index, DRAWS * ids.shape[1]))
    return mask_tokens(ids, mask, draws, special=SPECIAL, mask_id=MASK, vocabulary=VOCABULARY, **changes)


def likely(hits: Tensor, trials: Tensor, share: float) -> bool:
    return binomtest(int(hits.sum()), int(trials.sum()), share).pvalue > 1e-3


@pytest.mark.parametrize(
    ("rate", "random_share", "keep_share"), [(0.15, 0.1, 0.1), (0.4, 0.0, 0.0), (0.3, 0.5, 0.25), (0.8, 0.0, 1.0)]
)
def test_shares_are_those_asked_for(rate: float, random_share: float, keep_share: float) -> None:
    ids = torch.from_numpy(np.random.default_rng(1).choice(ordinary_ids(SPECIAL, VOCABULARY), (400, 200)))
    seen, selected = masked(ids, torch.ones_like(ids), rate=rate, random_share=random_share, keep_share=keep_share)
    same = seen == ids
    assert likely(selected, torch.ones_like(selected), rate)
    assert likely(selected & (seen == MASK), selected, 1 - random_share - keep_share)
    # a random token is by chance the token itself once in 35 times
    by_chance = random_share / (VOCABULARY - len(SPECIAL))
    assert likely(selected & same, selected, keep_share + by_chance)
    assert same[~selected].all()
    drawn = seen[selected & ~same & (seen != MASK)]
    assert likely(torch.ones_like(drawn), selected, random_share - by_chance) if random_share else not len(drawn)


def test_random_tokens_are_every_ordinary_one_alike() -> None:
    ids = torch.full((500, 100), 10)
    seen, _ = masked(ids, torch.ones_like(ids), rate=0.9, random_share=1.0, keep_share=0.0)
    counts = torch.bincount(seen[seen != 10], minlength=VOCABULARY)
    assert not counts[list(SPECIAL)].any()
    others = [i for i in range(VOCABULARY) if i not in (*SPECIAL, 10)]
    assert chisquare(counts[others].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.001, 0.15, 0.999])
def test_special_tokens_and_padding_are_never_touched(rate: float) -> None:
    ids, mask = texts(200, 30)
    seen, selected = masked(ids, mask, rate=rate, random_share=0.5)
    closed = torch.isin(ids, torch.tensor(SPECIAL)) | (mask == 0)
    assert closed.any()
    assert not (selected & closed).any()
    assert torch.equal(seen[closed], ids[closed])


def test_padding_that_looks_like_text_is_never_touched() -> None:
    ids = torch.full((50, 20), 10)
    mask = torch.ones_like(ids)
    mask[:, 12:] = 0
    seen, selected = masked(ids, mask, rate=0.99)
    assert selected[:, :12].any()
    assert not selected[:, 12:].any()
    assert (seen[:, 12:] == 10).all()


def test_every_example_with_a_word_gives_one_and_others_none() -> None:
    ids = torch.tensor([[CLS, 10, 11, 12, SEP], [CLS, UNK, SEP, PAD, PAD], [CLS, 10, SEP, PAD, PAD]])
    mask = (ids != PAD).long()
    _, selected = masked(ids, mask, rate=1e-9)
    assert selected.sum(-1).tolist() == [1, 0, 1]
    assert selected[2].tolist() == [False, True, False, False, False]


def test_the_one_token_of_a_short_text_is_any_of_them_alike() -> None:
    ids = torch.full((3000, 6), 10)
    _, selected = masked(ids, torch.ones_like(ids), rate=1e-9)
    assert (selected.sum(-1) == 1).all()
    assert chisquare(selected.sum(0).numpy()).pvalue > 1e-3


def test_choices_are_the_same_in_every_batch() -> None:
    ids, mask = texts(40, 30)
    whole = masked(ids, mask)
    order = np.random.default_rng(0).permutation(40)
    for part in np.array_split(order, 7):
        width = int(mask[part].sum(-1).max())  # as narrow as this part allows
        found = masked(ids[part, :width], mask[part, :width], index=part)
        assert torch.equal(found[0], whole[0][part, :width])
        assert torch.equal(found[1], whole[1][part, :width])
    wide = masked(torch.nn.functional.pad(ids, (0, 9), value=PAD), torch.nn.functional.pad(mask, (0, 9)))
    assert torch.equal(wide[1][:, :30], whole[1])


def test_choices_are_the_draws_alone() -> None:
    """By hand: one example, rate .5, random .2, keep .2."""
    ids = torch.tensor([[CLS, 10, 11, 12, 13, SEP]])
    draws = torch.full((1, 6, DRAWS), 0.0, dtype=torch.float64)
    draws[0, 1] = torch.tensor([0.49, 0.19, 0.9])  # selected, kept
    draws[0, 2] = torch.tensor([0.49, 0.39, 0.0])  # selected, the first ordinary token
    draws[0, 3] = torch.tensor([0.49, 0.41, 0.9])  # selected, masked
    draws[0, 4] = torch.tensor([0.51, 0.41, 0.9])  # not selected
    seen, selected = mask_tokens(
        ids,
        torch.ones_like(ids),
        draws,
        special=SPECIAL,
        mask_id=MASK,
        vocabulary=VOCABULARY,
        rate=0.5,
        random_share=0.2,
        keep_share=0.2,
    )
    assert selected.tolist() == [[False, True, True, True, False, False]]
    assert seen.tolist() == [[CLS, 10, 4, MASK, 13, SEP]]
