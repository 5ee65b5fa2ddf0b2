"""Token counts of labelled sequences: all that a closed-form fit reads from the data (DESIGN.md 3.2)."""

import numpy as np
import torch
from torch import Tensor


def check_token_ids(ids_M: Tensor, vocab_size: int) -> None:
    """Refuse ids that the vocabulary does not have.

    Raises:
        ValueError: if an id is negative or at least ``vocab_size``.
    """
    if ids_M.numel() == 0:
        return
    lowest, highest = (int(x) for x in torch.aminmax(ids_M))
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(
            f"Expected token ids from 0 to {vocab_size - 1}, but got {lowest if lowest < 0 else highest}."
            " The data were made with another tokenizer than the router's; prepare them with the router's own."
        )


def add_token_counts_(counts_EV: Tensor, ids_BT: Tensor, mask_BT: Tensor, domain_B: Tensor) -> Tensor:
    """Add the real tokens of a batch to ``counts_EV`` ``(E, V)`` int64, in place, and return it.

    ``ids_BT`` and ``domain_B`` are int64, ``mask_BT`` is bool, all on the CPU; a fully masked row weighs nothing.

    Raises:
        ValueError: if a real token's id or a domain is out of range.
    """
    num_domains, vocab_size = counts_EV.shape
    # NumPy counts on one thread; torch would start and join a team of them for every batch of some 10 µs of work.
    ids, mask, domains = ids_BT.numpy(), mask_BT.numpy(), domain_B.numpy()
    whole = bool(mask.all())  # packed blocks: nothing to select
    present = np.unique(domains).tolist()
    if present and not 0 <= present[0] <= present[-1] < num_domains:
        raise ValueError(f"Expected domains from 0 to {num_domains - 1}, but got {present}.")
    for domain in present:  # a batch holds few domains
        of_domain = domains == domain
        rows = ids if len(present) == 1 else ids[of_domain]
        ids_M = rows.reshape(-1) if whole else rows[mask if len(present) == 1 else mask[of_domain]]
        if ids_M.size and not 0 <= ids_M.min() <= ids_M.max() < vocab_size:
            check_token_ids(torch.from_numpy(ids_M), vocab_size)
        counts_EV.numpy()[domain] += np.bincount(ids_M, minlength=vocab_size)
    return counts_EV
