"""Run Python that nobody has read: without network, files, secrets or power over anything outside."""

from ir3de.isolation.outcome import Limits, Outcome, Status
from ir3de.isolation.run import check_isolation, run_isolated

__all__ = ["Limits", "Outcome", "Status", "check_isolation", "run_isolated"]
