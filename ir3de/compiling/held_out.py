"""The validation sequences that a compiled router is measured on: some of many, the same ones whenever it is made."""

import numpy as np

from ir3de.statistics.token_counts import TokenCounts


def held_out(statistics: TokenCounts, *, at_most: int) -> list[list[np.ndarray]]:
    """Return the validation sequences of each expert, each as its ids; of more than ``at_most`` some, evenly spread."""
    return [share.validation.sequences()[:: -(-len(share.validation) // at_most) or 1]
            for share in statistics.shares.values()]  # fmt: skip
