"""Token counts of labelled sequences: all that a closed-form fit reads from the data (DESIGN.md 3.2)."""

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

    ``ids_BT`` and ``domain_B`` are int64, ``mask_BT`` is bool; a fully masked row weighs nothing.

    Raises:
        ValueError: if a real token's id or a domain is out of range.
    """
    num_domains, vocab_size = counts_EV.shape
    whole = bool(mask_BT.all())  # packed blocks: a view of all ids, and nothing to select
    ids_M = ids_BT.reshape(-1) if whole else ids_BT.masked_select(mask_BT)
    check_token_ids(ids_M, vocab_size)
    domains = domain_B.unique().tolist()
    if domains and not 0 <= domains[0] <= domains[-1] < num_domains:
        raise ValueError(f"Expected domains from 0 to {num_domains - 1}, but got {domains}.")
    for domain in domains:  # a batch holds few domains
        if len(domains) > 1:
            ids_M = ids_BT.masked_select(mask_BT & (domain_B == domain)[:, None])
        counts_EV[domain] += torch.bincount(ids_M, minlength=vocab_size)
    return counts_EV
