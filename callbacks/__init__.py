"""Lightning callbacks: one job each, listed in ``configs/trainer``; ir3de never imports them."""

from callbacks.fit_router import FitRouter
from callbacks.report_verdict import ReportVerdict
from callbacks.save_router import SaveRouter
from callbacks.write_predictions import WritePredictions

__all__ = ["FitRouter", "ReportVerdict", "SaveRouter", "WritePredictions"]
