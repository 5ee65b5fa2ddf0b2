"""What the benchmarks aim at, and whether it was reached."""

from dataclasses import dataclass
from typing import Any

Numbers = dict[str, Any]
LENGTHS = ("80", "400", "2000", "8000")
WINDOWED = "majority, window"
ENCODERS = {"minilm_knn": "MiniLM and kNN", "deberta_small": "DeBERTa-v3-small's size"}
KOLMO = {"80": 0.3, "400": 0.5, "2000": 0.9, "8000": 0.5}
IDS = {"majority": 2.0, "entropy_top_k": 5.0, "mean": 6.0}  # µs at 230 tokens


@dataclass(frozen=True)
class Target:
    """What was aimed at: ``measured`` is to be at most, or at least, ``bound``."""

    what: str
    measured: float
    bound: float
    at_most: bool
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound

    def cells(self) -> list[str]:
        """Return the row of a table."""
        sign = "≤" if self.at_most else "≥"
        return [
            self.what,
            f"{number(self.measured)}{self.unit}",
            f"{sign} {self.bound:g}{self.unit}",
            "yes" if self.met else "no",
        ]


def targets(result: Numbers) -> list[Target]:
    """Return what was aimed at, and what was reached."""
    ids, text = result["decisions"]["ids"], result["decisions"]["text"]
    found = [
        Target(f"ids to decision, 230 tokens, {name}", ids["one_prompt"]["230"][name], bound, True, " µs")
        for name, bound in IDS.items()
    ]
    batch = ids["batch"]
    found.append(
        Target("16 × 1,024 ids: published formula / ours", batch["published"] / batch["compiled"], 200, False, "×")
    )
    for name in IDS:
        row = result["decisions"]["batches"][name]
        what = f"what {name} adds to the tokenizer, batches of 2,000 characters"
        found.append(Target(what, row["added_percent"], 15, True, "%"))
    for length, bound in KOLMO.items():
        ours = WINDOWED if length == "8000" else "majority"
        what = f"text to decision, {int(length):,} characters, {ours} / kolmo"
        found.append(Target(what, text[length][ours]["best"] / text[length]["kolmo"]["best"], bound, True))
    agreement = text["8000"]["agreement"]["majority"]
    found.append(
        Target("the window's decision is the full one's, 8,000 characters, majority", agreement, 99, False, "%")
    )
    for title, one in result["confidence"].items():
        errors = [
            state["expected_calibration_error"] for states in one["routers"].values() for state in states.values()
        ]
        found.append(Target(f"the worst ECE of any router and state, {title}", max(errors), 0.03, True))
    for length in LENGTHS:
        own = own_time(text[length])
        what = f"own time at {int(length):,} characters: aurelio's beyond the encoder / ours beyond the tokenizer"
        found.append(Target(what, text[length]["aurelio_free"]["best"] / own, 50, False, "×"))
    for length in LENGTHS:
        for name, shown in ENCODERS.items():
            ratio = text[length][name]["best"] / text[length]["majority"]["best"]
            found.append(
                Target(f"text to decision, {int(length):,} characters: {shown} / majority", ratio, 1000, False, "×")
            )
    return found


def own_time(row: Numbers) -> float:
    """Return the microseconds that scoring and deciding take, beside tokenizing."""
    stages = row["stages"]["majority"]
    return float(stages["scoring"] + stages["deciding"])


def number(value: float) -> str:
    """Return a number with about three digits."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
