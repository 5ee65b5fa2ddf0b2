"""What is served: a value that a request takes once, and that is replaced in one step when something changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ir3de.gateway.answers import Expert
from ir3de.gateway.settings import Limits, LocalSettings, Place, Upstream
from ir3de.serving.compiled import CompiledRouter


@dataclass
class Member:
    """An expert that can be asked, where it is, and how it has been doing.

    Args:
        expert: What answers.
        place: Where it is.
        about: Its upstream, or how local experts are loaded, as the config has it.
        failures: In a row, until now.
        rests_until: The time (``time.monotonic``) until which it is asked last.
    """

    expert: Expert
    place: Place
    about: Upstream | LocalSettings
    failures: int = field(default=0)
    rests_until: float = field(default=0.0)

    def failed(self, now: float, limits: Limits) -> bool:
        """Count a failure; return whether the expert rests from now on: after enough in a row, and after each more."""
        self.failures += 1
        if self.failures < limits.rest_after:
            return False
        self.rests_until = now + limits.rest_seconds
        return True

    def answered(self) -> None:
        """Forget failures."""
        self.failures, self.rests_until = 0, 0.0


@dataclass(frozen=True)
class Served:
    """A router and the experts that can be asked. Each may have experts that the other does not."""

    router: CompiledRouter
    members: Mapping[str, Member]

    def in_turn(self, order: list[str], now: float) -> list[str]:
        """Return ``order`` with the experts that rest at its end."""
        return sorted(order, key=lambda name: self.members[name].rests_until > now)
