"""torchmetrics classes of routing; each state declares its own reduction."""

from ir3de.metrics.accuracy import RoutingConfusion
from ir3de.metrics.perplexity import DomainPerplexity, NormalizedPerformance, Regret

__all__ = ["DomainPerplexity", "NormalizedPerformance", "Regret", "RoutingConfusion"]
