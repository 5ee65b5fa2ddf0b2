"""Negative log-likelihood of sequences, without logits for a whole batch.

Shape suffixes: B sequences, T tokens, D hidden features, V vocabulary entries, M targets that count.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]


def next_token_nll(
    hidden_BTD: Tensor, head: Head, input_ids_BT: Tensor, attention_mask_BT: Tensor, *, chunk_rows: int = 256
) -> tuple[Tensor, Tensor]:
    """Sum the next-token loss of each sequence, in nats: ``(B,)`` float64, with its ``(B,)`` int64 target counts.

    A token is a target if it and the one before it are real, so padding never counts, on either side.
    Logits exist for ``chunk_rows`` positions at a time, in float32; with gradients they are computed again
    in the backward pass, so that they are never all kept.

    Args:
        hidden_BTD: ``(B, T, D)`` last hidden states, of any floating type.
        head: Gives the logits ``(M, V)`` of hidden states ``(M, D)``, such as a model's output embeddings.
        input_ids_BT: ``(B, T)`` int64.
        attention_mask_BT: ``(B, T)``, true where a token is real.
        chunk_rows: Positions whose logits exist at once.

    Raises:
        ValueError: if ``chunk_rows`` is not positive.
    """
    if chunk_rows < 1:
        raise ValueError(f"Expected `chunk_rows` to be at least 1, but got {chunk_rows}.")
    counts_BT, targets_M = _targets(input_ids_BT, attention_mask_BT)
    hidden_MD = hidden_BTD[:, :-1][counts_BT]
    parts = []
    for rows_D, targets in zip(hidden_MD.split(chunk_rows), targets_M.split(chunk_rows), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(_rows_nll, rows_D, head, targets, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_rows_nll(rows_D, head, targets))
    return _per_sequence(torch.cat(parts) if parts else hidden_MD.new_zeros(0), counts_BT)


def nll_of_logits(logits_BTV: Tensor, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Do as ``next_token_nll`` from ``(B, T, V)`` logits, for models whose logits are more than their head's."""
    counts_BT, targets_M = _targets(input_ids_BT, attention_mask_BT)
    nll_M = cross_entropy(logits_BTV[:, :-1][counts_BT].float(), targets_M, reduction="none")
    return _per_sequence(nll_M, counts_BT)


def with_next(input_ids_BT: Tensor, attention_mask_BT: Tensor, next_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids and mask ``(B, T + 1)`` in which each sequence has the token ``next_B`` ``(B,)`` that follows it.

    Padding is on the right. Where ``next_B`` is -1 nothing is added, so that the last real token stays the last target.
    """
    rows_B = torch.arange(len(next_B), device=next_B.device)
    length_B = attention_mask_BT.sum(dim=1)
    known_B = (next_B >= 0) & (length_B > 0)
    ids = torch.nn.functional.pad(input_ids_BT, (0, 1))
    mask = torch.nn.functional.pad(attention_mask_BT.bool(), (0, 1))
    ids[rows_B[known_B], length_B[known_B]] = next_B[known_B]
    mask[rows_B[known_B], length_B[known_B]] = True
    return ids, mask


def _targets(input_ids_BT: Tensor, attention_mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    real_BT = attention_mask_BT.bool()
    counts_BT = real_BT[:, :-1] & real_BT[:, 1:]
    return counts_BT, input_ids_BT[:, 1:][counts_BT]


def _rows_nll(hidden_MD: Tensor, head: Head, targets_M: Tensor) -> Tensor:
    return cross_entropy(head(hidden_MD).float(), targets_M, reduction="none")


def _per_sequence(nll_M: Tensor, counts_BT: Tensor) -> tuple[Tensor, Tensor]:
    if nll_M.device.type == "mps":  # which has no float64
        nll_M, counts_BT = nll_M.cpu(), counts_BT.cpu()
    # A masked write and a row sum, since `index_add_` adds in no fixed order on a GPU.
    nll_BT = torch.zeros(counts_BT.shape, dtype=torch.float64, device=nll_M.device)
    nll_BT = nll_BT.masked_scatter(counts_BT, nll_M.double())
    return nll_BT.sum(1), counts_BT.sum(1)
