"""BERT's masking: which tokens are selected, and what replaces them, as a function of given random numbers."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

DRAWS = 3
"""Random numbers per token: whether it is selected, what becomes of it, which token replaces it."""


def mask_tokens(
    input_ids: Tensor,
    attention_mask: Tensor,
    draws: Tensor,
    *,
    special: Collection[int],
    mask_id: int,
    vocabulary: int,
    rate: float = 0.15,
    random_share: float = 0.1,
    keep_share: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Select tokens and replace them (Devlin et al. 2018, arXiv 1810.04805, section 3.1).

    Each ordinary token, neither special nor padding, is selected independently with probability `rate`. Of the selected
    `keep_share` stay as they are, `random_share` become an ordinary token drawn uniformly (perhaps the same), and the
    others the mask token. In an example where this selects none, the ordinary token with the smallest draw is
    selected, since the authors' code selects at least one; an example without ordinary tokens has none.

    Args:
        input_ids: (B, T).
        attention_mask: (B, T), 0 where there is padding.
        draws: uniform numbers in [0, 1), (B, T, 3) or flat (B, 3·T): token t of an example uses its numbers 3·t,
            3·t + 1 and 3·t + 2, so that wider padding changes no choice. In 64 bits, to resolve the vocabulary.
        special: ids that are never selected and never drawn.
        vocabulary: ordinary ids are 0, …, vocabulary − 1 without `special`.

    Returns:
        Ids of the masked text (B, T), and the selected tokens, bool (B, T).
    """
    select, become, which = draws.reshape(*input_ids.shape, DRAWS).unbind(-1)
    ordinary = ordinary_ids(special, vocabulary).to(input_ids.device)
    eligible = attention_mask.bool() & ~torch.isin(input_ids, _as_tensor(special, input_ids))
    selected = eligible & (select < rate)
    least = select.masked_fill(~eligible, 2.0).argmin(-1, keepdim=True)
    without = ~selected.any(-1, keepdim=True)
    selected |= without & eligible & torch.zeros_like(eligible).scatter(-1, least, True)
    random_ids = ordinary[(which * len(ordinary)).long().clamp_max(len(ordinary) - 1)]
    masked = torch.full_like(input_ids, mask_id)
    masked = torch.where(become < random_share + keep_share, random_ids, masked)
    masked = torch.where(become < keep_share, input_ids, masked)
    return torch.where(selected, masked, input_ids), selected


def ordinary_ids(special: Collection[int], vocabulary: int) -> Tensor:
    """Return ids 0, …, vocabulary − 1 without the special ones, in order."""
    ids = torch.arange(vocabulary)
    return ids[~torch.isin(ids, _as_tensor(special, ids))]


def _as_tensor(ids: Collection[int], like: Tensor) -> Tensor:
    return torch.tensor(sorted(ids), dtype=like.dtype, device=like.device)
