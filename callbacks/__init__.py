"""Lightning callbacks: one job each, listed in ``configs/trainer``; ir3de never imports them."""

from callbacks.choose_on_validation import ChooseOnValidation
from callbacks.fit_router import FitRouter
from callbacks.report_verdict import ReportVerdict
from callbacks.save_router import SaveRouter
from callbacks.write_predictions import WritePredictions

__all__ = ["ChooseOnValidation", "FitRouter", "ReportVerdict", "SaveRouter", "WritePredictions"]
