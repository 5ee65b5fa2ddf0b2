"""When a prompt goes to none of the experts: unsure which of them, or unusual for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

NoneBecause = Literal["unsure", "unusual"]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a prompt must keep to, to go to the expert with the highest score.

    Args:
        threshold: The least confidence; everything is sure enough, if not given.
        alarm: The level of the alarm: a prompt with this p-value or a lower one is unusual. With 0 nothing is.
        fallback: The expert that gets what does not keep to them; without one, none does.

    Raises:
        ValueError: if one is out of its range, or a fallback has nothing to fall back from.
    """

    threshold: float | None = None
    alarm: float | None = None
    fallback: str | None = None

    def __post_init__(self) -> None:
        if self.fallback is not None and self.threshold is None and not self.alarm:
            raise ValueError(
                f"The fallback {self.fallback!r} is for what is below a threshold, or unusual. Give a threshold, or an"
                " alarm above 0, too."
            )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"Expected a threshold from 0 to 1, but got {self.threshold}.")
        if self.alarm is not None and not 0 <= self.alarm < 1:
            raise ValueError(
                f"Expected the alarm's level to be at least 0 and below 1, but got {self.alarm}. 0.01 refuses one in a"
                " hundred usual prompts, 0 none."
            )

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse a compiled router, of which this is the ``config``, that cannot say what the bounds are about.

        Raises:
            ValueError: if the fallback is no expert, or the threshold has no confidence to be held against.
        """
        if self.fallback is not None and self.fallback not in config["experts"]:
            raise ValueError(f"Expected the fallback to be one of {config['experts']}, but got {self.fallback!r}.")
        if self.threshold is not None and not config["calibration"]:
            raise ValueError(
                f"A threshold of {self.threshold} needs a confidence, but the router has no validation sequences to"
                " calibrate it on. Fit it with a validation split."
            )

    def broken_by(self, confidence: float | None, p_value: float | None) -> NoneBecause | None:
        """Return why a prompt goes to none of the experts, ``None`` if it does not.

        What is unusual for all of them is that first: a confidence is about which of them, and says nothing then.
        """
        if p_value is not None and self.alarm is not None and p_value <= self.alarm:
            return "unusual"
        if confidence is not None and self.threshold is not None and confidence < self.threshold:
            return "unsure"
        return None
