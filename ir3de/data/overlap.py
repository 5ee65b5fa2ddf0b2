"""Refuses to test on what was trained on."""

from collections.abc import Sequence

import numpy as np

from ir3de.data.views import DomainViews


def check_disjoint(views: DomainViews, names: Sequence[str]) -> int:
    """Return how many test documents were looked for in all domains' training and validation documents.

    Documents are compared by the hash of their text with white space normalised; sequences of token ids by theirs.

    Raises:
        ValueError: if a test document is among the others; the domains are named.
    """
    tested = 0
    for hashes in (views.document_hashes, views.row_hashes):
        test = {name: hashes("test", name) for name in names}
        tested += sum(len(of) for of in test.values())
        for split in ("train", "validation"):
            for name in names:
                seen = hashes(split, name)
                for of, tests in test.items():
                    common = len(np.intersect1d(seen, tests))
                    if common:
                        raise ValueError(
                            f"{common} test documents of `{of}` are among the {split} documents of `{name}`: what they"
                            " say of a router is worth nothing. Give splits without common documents, or one source"
                            " that is split here."
                        )
    return tested
