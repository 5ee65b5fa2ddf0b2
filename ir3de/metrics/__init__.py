"""torchmetrics classes of routing; each state declares its own reduction."""

from ir3de.metrics.accuracy import RoutingConfusion
from ir3de.metrics.quality import DomainQuality, NormalizedPerformance, Regret

__all__ = ["DomainQuality", "NormalizedPerformance", "Regret", "RoutingConfusion"]
