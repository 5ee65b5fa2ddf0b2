"""What the benchmarks aim at, and whether it was reached.

Times are judged by the best rounds, and ratios by equally many on both sides; what medians say stands beside.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from turns import Numbers, bests

LENGTHS = ("80", "400", "2000", "8000")
WINDOWED, FIRST_ONLY = "majority, window", "majority, first 1,000 characters"
ENCODERS = {"minilm_knn": "MiniLM and kNN", "deberta_small": "DeBERTa-v3-small's size"}
KOLMO = {"kolmo": "kolmo", "kolmo_one_size": "kolmo, one size"}
KOLMO_AT_MOST = {"80": 0.3, "400": 0.5, "2000": 0.9, "8000": 0.5}
AURELIO = {"aurelio_free": "200 texts a domain", "aurelio_free_few": "10 texts a domain"}
IDS = {"majority": 2.0, "entropy_top_k": 5.0, "mean": 6.0}  # µs at 230 tokens
OURS = (*IDS, "naive_bayes", "smoothed_bayes")
RECOMMENDED = ("majority", "smoothed_bayes")  # the fastest, and the one that is right most often


@dataclass(frozen=True)
class Target:
    """What was aimed at: ``measured`` is to be at most, or at least, ``bound``; ``by_medians`` only stands beside."""

    what: str
    measured: float
    bound: float
    at_most: bool
    unit: str = ""
    by_medians: float | None = None
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound

    def cells(self) -> list[str]:
        """Return the row of a table."""
        sign = "≤" if self.at_most else "≥"
        return [
            self.what,
            f"{number(self.measured)}{self.unit}{f' ({self.note})' if self.note else ''}",
            "" if self.by_medians is None else f"{number(self.by_medians)}{self.unit}",
            f"{sign} {self.bound:g}{self.unit}",
            "yes" if self.met else "no",
        ]


COLUMNS = ["", "measured", "by medians", "aim", "met"]


def targets(result: Numbers) -> list[Target]:
    """Return what was aimed at, and what was reached."""
    groups = (_from_ids, _batches, _kolmo, _windows, _confidence, _aurelio, _encoders)
    return [one for group in groups for one in group(result)]


def _from_ids(result: Numbers) -> Iterator[Target]:
    ids = result["decisions"]["ids"]
    for name, bound in IDS.items():
        row = ids["one_prompt"]["230"][name]
        yield Target(f"ids to decision, 230 tokens, {name}", row["best"], bound, True, " µs", row["p50"])
    best, medians = ratios("published", "compiled", ids["batch"])
    yield Target("16 × 1,024 ids: published formula / ours", best, 200, False, "×", medians)


def _batches(result: Numbers) -> Iterator[Target]:
    for name in OURS:
        row = result["decisions"]["batches"][name]
        what = f"what {name} adds to the tokenizer, batches of 2,000 characters"
        yield Target(what, row["added_percent"], 15, True, "%", row["added_percent_by_medians"])


def _kolmo(result: Numbers) -> Iterator[Target]:
    for key, shown in KOLMO.items():
        for length, bound in KOLMO_AT_MOST.items():
            row, ours = result["decisions"]["text"][length], WINDOWED if length == "8000" else "majority"
            what = f"text to decision, {int(length):,} characters, {ours} / {shown}"
            best, medians = ratios(ours, key, row)
            yield Target(what, best, bound, True, "", medians)


def _windows(result: Numbers) -> Iterator[Target]:
    same = result["decisions"]["text"]["8000"]["agreement"]["majority"]
    yield Target("the window's decision is the full one's, 8,000 characters, majority", same, 99, False, "%")


def _confidence(result: Numbers) -> Iterator[Target]:
    for title, one in result["confidence"].items():
        errors = [
            state["expected_calibration_error"] for states in one["routers"].values() for state in states.values()
        ]
        yield Target(f"the worst ECE of any router and state, {title}", max(errors), 0.03, True)


def _aurelio(result: Numbers) -> Iterator[Target]:
    for length in LENGTHS:
        row = result["decisions"]["text"][length]
        for key, shown in AURELIO.items():
            for ours in RECOMMENDED:
                # Their own time is what they take beyond encoding, ours beyond tokenizing, in equally many rounds.
                own = {which: row["stages"][key]["scoring"][which] / own_time(row["stages"][ours], which)
                       for which in ("best", "p50")}  # fmt: skip
                whole, _ = ratios(key, ours, row)
                what = f"own time, {int(length):,} characters: aurelio's router, {shown} / {ours}"
                note = f"{number(whole)}× with our tokenizing"
                yield Target(what, own["best"], 50, False, "×", own["p50"], note)


def _encoders(result: Numbers) -> Iterator[Target]:
    for length in LENGTHS:
        row = result["decisions"]["text"][length]
        for key, shown in ENCODERS.items():
            what = f"text to decision, {int(length):,} characters: {shown} / majority"
            (best, medians), note = ratios(key, "majority", row), ""
            if key == "minilm_knn" and FIRST_ONLY in row:  # about as much of the text as MiniLM reads
                note = f"{number(ratios(key, FIRST_ONLY, row)[0])}× where ours, too, reads the beginning only"
            yield Target(what, best, 1000, False, "×", medians, note)


def ratios(one: str, other: str, found: Numbers) -> tuple[float, float]:
    """Return how many times the other's microseconds one takes: by the best rounds that both have, and by medians."""
    best, of_other = bests(one, other, found)
    return best / of_other, found[one]["p50"] / found[other]["p50"]


def own_time(stages: Numbers, which: str = "best") -> float:
    """Return the microseconds that scoring and deciding take, beside tokenizing."""
    return float(stages["scoring"][which] + stages["deciding"][which])


def number(value: float) -> str:
    """Return a number with about three digits."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
