"""Routers: tokens or text in, a score for every expert out."""

from ir3de.routers.bayes import NaiveBayesRouter
from ir3de.routers.ridge import RidgeRouter
from ir3de.routers.router import Router

__all__ = ["NaiveBayesRouter", "RidgeRouter", "Router"]
