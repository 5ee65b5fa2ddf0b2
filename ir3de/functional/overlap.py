"""Runs of n words as 64-bit hashes, and how many of them were seen before.

Shape suffixes: ``M`` words of a text, ``R`` runs of n words.
"""

import numpy as np

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


def run_hashes(words_M: np.ndarray, n: int) -> np.ndarray:
    """Return one hash for every run of ``n`` consecutive words, ``(M - n + 1,)`` uint64, in order.

    ``words_M`` holds a hash or an id for each word, uint64. A text of fewer than ``n`` words has no run.

    Raises:
        ValueError: if ``n`` is not positive.
    """
    if n < 1:
        raise ValueError(f"Expected runs of at least one word, but got `n={n}`.")
    num_runs = max(len(words_M) - n + 1, 0)
    hashes_R = np.zeros(num_runs, dtype=np.uint64)
    for place in range(n):  # a polynomial in the words: order matters, and 2^64 wraps around by itself
        hashes_R = hashes_R * _MULTIPLIER + words_M[place : place + num_runs]
    hashes_R ^= hashes_R >> np.uint64(31)
    hashes_R *= _MIX
    return hashes_R ^ (hashes_R >> np.uint64(29))


def seen_share(test_R: np.ndarray, training_R: np.ndarray) -> float:
    """Return the share of runs in ``test_R`` that occur in ``training_R``, NaN where there is no run.

    Repeated runs count as often as they occur in ``test_R``. ``training_R`` must be sorted.
    """
    if len(test_R) == 0:
        return float("nan")
    if len(training_R) == 0:
        return 0.0
    places = np.minimum(np.searchsorted(training_R, test_R), len(training_R) - 1)
    return float(np.mean(training_R[places] == test_R))
