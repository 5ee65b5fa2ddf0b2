"""The out-of-domain alarm: how unusual a prompt is under every expert's counts, in microseconds, with NumPy alone."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from ir3de.functional.surprise import LEAST, p_value, thinned
from ir3de.serving.artifact import ALARM, CompiledFiles, read_compiled
from ir3de.serving.tables import MeanTable, as_ids
from ir3de.serving.traffic import ARRAYS as TRAFFIC
from ir3de.serving.traffic import Traffic

Array = np.ndarray
ARRAYS = ("surprise", "lengths", "mean", "deviation", "tails", "tail_sizes", "ranks", "rank_sizes")
_AT_ONCE = 1 << 20  # entries of the table
RANKED = 100  # validation sequences from which an expert's own rank a prompt that is nearest to it; else those of all


class Unusual(NamedTuple):
    """How unusual a prompt is.

    ``p_value`` is the share of validation sequences that are at least so unusual for their length, the prompt itself
    among them: at most α for a prompt like those with probability α. ``excess`` is how many standard
    deviations its tokens diverge more from the counts of ``nearest``, the index of the expert that they diverge from
    least, than that expert's own sequences do. ``tokens`` were read: of a prompt longer than those sequences so many,
    evenly spaced.
    """

    p_value: float
    excess: float
    nearest: int
    tokens: int


class Alarm:
    """Knows what is usual: the surprise of every token for every expert, and how validation sequences diverged.

    ``arrays`` are what ``ARRAYS`` names: the guarded table ``surprise`` ``(G, E)`` (see ``ir3de.serving.tables``), the
    curves, for each length the excesses of the validation sequences, thinned to it, ascending (``tails``, one length
    after the other), and for each nearest expert, and for all, how rare its sequences are among those (``ranks``).
    ``config`` says of which router it is; ``uncalibrated`` there names experts with too few validation sequences of
    their own, for which it goes by the others'. ``usual`` are the arrays of the validation
    sequences' ``Traffic``; an alarm that was not loaded may have none.
    """

    def __init__(
        self, arrays: Mapping[str, Array], config: Mapping[str, Any], *, usual: Mapping[str, Array] | None = None
    ) -> None:
        self._surprise_GE = arrays["surprise"]
        self._table = MeanTable(self._surprise_GE)
        self._lengths: list[int] = arrays["lengths"].tolist()
        self._log_lengths = np.log(arrays["lengths"]).tolist()
        self._mean_LE = arrays["mean"]
        self._deviation_LE = arrays["deviation"]
        self._tails = _parts(arrays["tails"], arrays["tail_sizes"])
        *own, everyone = _parts(arrays["ranks"], arrays["rank_sizes"])
        self._ranks = [ranks or everyone for ranks in own]
        self._usual = usual
        self.config = config
        self.expert_names: tuple[str, ...] = tuple(config["experts"])
        counts = np.arange(self.longest + 1)
        self._count_log_count = counts * np.log(np.maximum(counts, 1))

    @classmethod
    def load(cls, folder: Path | str, *, source: Mapping[str, str] | None = None) -> Self:
        """Read the alarm of the compiled router in ``folder``, which must be that of ``source`` if it is given.

        Raises:
            FileNotFoundError: if there is none: no router, or one with too few validation sequences.
            ValueError: if a file is damaged, or it is another router's.
        """
        files = read_compiled(Path(folder))
        if source is not None and files.config["source"] != source:
            raise ValueError(f"The router in `{files.folder}` was compiled again while it was being read. Try again.")
        return cls.of(files)

    @classmethod
    def of(cls, files: CompiledFiles) -> Self:
        """Return the alarm of the compiled router in ``files``.

        Raises:
            FileNotFoundError: if it has none.
            ValueError: if one of its arrays is not there, or is not for the router's experts.
        """
        config = files.config
        if config["alarm"] is None:
            raise FileNotFoundError(
                f"The compiled router in `{files.folder}` has no alarm beside it, so nothing is known of what is usual."
                f" Fit the router on a validation split with at least {LEAST} sequences of an expert."
            )
        arrays = {name: files.array(f"{ALARM}{name}") for name in ARRAYS}
        num_experts = len(config["experts"])
        if arrays["surprise"].shape != (config["alarm"]["vocab_size"] + 2, num_experts):
            raise ValueError(
                f"Expected the alarm in `{files.folder}` to be for {num_experts} experts and"
                f" {config['alarm']['vocab_size']} vocabulary entries, but its table is of shape"
                f" {arrays['surprise'].shape}. Compile the router again."
            )
        return cls(
            arrays,
            {**config["alarm"], "source": config["source"], "experts": config["experts"]},
            usual={name: files.array(f"{ALARM}usual_{name}") for name in TRAFFIC},
        )

    @property
    def longest(self) -> int:
        """Tokens that are read of a longer prompt."""
        return self._lengths[-1]

    def check(self, ids_T: Array) -> Unusual:
        """Return how unusual a prompt of these token ids is.

        Raises:
            ValueError: if there is no token, or an id is out of range.
        """
        if len(ids_T) > self.longest:
            ids_T = thinned(as_ids(ids_T), self.longest)
        divergence_E = self._table.scores(ids_T) - self._entropy(ids_T)
        return self._judge(divergence_E, len(ids_T))

    def check_level(self, level: float) -> str | None:
        """Return a sentence that names experts near which no p-value is as low as ``level``, if there are some.

        Raises:
            ValueError: if no p-value is as low at all.
        """
        least = {name: 1 / (len(ranks) + 1) for name, ranks in zip(self.expert_names, self._ranks, strict=True)}
        beyond = [name for name, value in least.items() if 0 < level < value]
        if len(beyond) == len(least):
            raise ValueError(
                f"Expected a level of the alarm that a p-value can have, but got {level}: with so few validation"
                f" sequences the lowest is {min(least.values()):.3g}. Give a higher level, or fit with more of them."
            )
        if not beyond:
            return None
        shown = ", ".join(f"{name} ({least[name]:.3g})" for name in beyond)
        return f"the alarm's level of {level} is below the lowest p-value of prompts that are nearest to {shown}"

    def share_under(self, expert_share_E: Array) -> Array:
        """Return the smoothed training distribution ``(V,)`` of text that comes from the experts in these shares."""
        surprise_VE = self._surprise_GE[1:-1]
        distribution_V: Array = np.empty(len(surprise_VE))
        rows = max(1, _AT_ONCE // surprise_VE.shape[1])  # all in float64 would be twice the table
        for first in range(0, len(surprise_VE), rows):
            some = slice(first, first + rows)
            distribution_V[some] = np.exp(-surprise_VE[some].astype(np.float64)) @ expert_share_E
        return distribution_V

    def usual_traffic(self) -> Traffic:
        """Return the counts of the validation sequences, as if they were prompts."""
        assert self._usual is not None, "an alarm that was loaded"
        return Traffic.from_arrays(
            self._usual, vocab_size=self.config["vocab_size"], expert_names=self.expert_names,
            identity=self.config["source"]["identity"],
        )  # fmt: skip

    def _entropy(self, ids_T: Array) -> float:
        tokens = len(ids_T)
        ordered_T = np.sort(ids_T)
        begins = (ordered_T[1:] != ordered_T[:-1]).nonzero()[0]
        edges = np.empty(len(begins) + 2, dtype=np.int64)
        edges[0], edges[1:-1], edges[-1] = -1, begins, tokens - 1
        return math.log(tokens) - float(self._count_log_count.take(edges[1:] - edges[:-1]).sum()) / tokens

    def _judge(self, divergence_E: Array, tokens: int) -> Unusual:
        low = bisect_right(self._lengths, tokens) - 1
        high = min(low + 1, len(self._lengths) - 1)
        part = 0.0
        if high > low:
            part = (math.log(tokens) - self._log_lengths[low]) / (self._log_lengths[high] - self._log_lengths[low])
        mean_E = self._mean_LE[low] * (1 - part) + self._mean_LE[high] * part
        deviation_E = self._deviation_LE[low] * (1 - part) + self._deviation_LE[high] * part
        excess_E = (divergence_E - mean_E) / deviation_E
        nearest = int(excess_E.argmin())
        excess = float(excess_E[nearest])
        rarity = (1 - part) * p_value(excess, self._tails[low]) + part * p_value(excess, self._tails[high])
        ranks = self._ranks[nearest]
        return Unusual((1 + bisect_right(ranks, rarity)) / (len(ranks) + 1), excess, nearest, tokens)


def _parts(values: Array, sizes: Array) -> list[list[float]]:
    return [part.tolist() for part in np.split(values, np.cumsum(sizes)[:-1])]
