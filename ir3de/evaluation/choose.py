"""What is left open in the config is chosen on validation data, never on test data (DESIGN.md 4)."""

from collections.abc import Iterable
from dataclasses import dataclass

from ir3de.metrics import RoutingConfusion
from ir3de.routers.router import Choice, Router
from ir3de.types import Batch


@dataclass(frozen=True, slots=True)
class ScoredChoice:
    """A choice and its routing accuracy on validation data, mean over domains, in percent."""

    choice: Choice
    routing_accuracy_mean: float


def choose_on_validation(router: Router, batches: Iterable[Batch], *, num_domains: int) -> list[ScoredChoice]:
    """Set the open choice of ``router`` with the highest routing accuracy, and return all of them with theirs.

    Ties go to the choice that the router lists first. ``batches`` is read once per choice.
    """
    scored = []
    for choice in router.choices():
        router.choose(choice)
        confusion = RoutingConfusion(num_domains=num_domains)
        for batch in batches:
            confusion.update(router.decide(batch["input_ids"], batch["attention_mask"]).expert_B, batch["domain"])
        scored.append(ScoredChoice(choice, float(confusion.accuracy()["routing_accuracy_mean"])))
    if scored:
        router.choose(max(scored, key=lambda one: one.routing_accuracy_mean).choice)  # max keeps the first of equals
    return scored
