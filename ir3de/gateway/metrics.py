"""What Prometheus is told; labels are names of experts and fixed words, so that clients cannot make new ones."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ir3de.serving.traffic import USUAL

NOBODY = ""
_DECISION_BUCKETS = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 0.05, 0.5)
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters, gauges and histograms of one gateway."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "ir3de_requests", "Requests by how they ended.", ["endpoint", "expert", "outcome"], registry=registry
        )
        self.decisions = Counter(
            "ir3de_decisions", "Decisions of the router by the expert it chose.", ["expert"], registry=registry
        )
        self.unusual = Counter(
            "ir3de_unusual", f"Decisions with a p-value of the alarm below {USUAL}.", ["expert"], registry=registry
        )
        self.decision_seconds = Histogram(
            "ir3de_decision_seconds", "From text to decision.", buckets=_DECISION_BUCKETS, registry=registry
        )
        self.request_seconds = Histogram(
            "ir3de_request_seconds", "From a request to the end of its answer.", buckets=_REQUEST_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self.failures = Counter(
            "ir3de_expert_failures", "Experts that gave no usable answer.", ["expert", "reason"], registry=registry
        )
        self.retries = Counter("ir3de_retries", "Requests passed on to the next-best expert.", registry=registry)
        self.running = Gauge("ir3de_requests_running", "Requests that are being answered.", registry=registry)
        self.reloads = Counter("ir3de_router_reloads", "Reloads of the router.", ["outcome"], registry=registry)
        self.experts = Gauge("ir3de_experts_served", "Experts that can be asked.", registry=registry)

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)
