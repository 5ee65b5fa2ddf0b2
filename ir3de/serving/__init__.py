"""Routers as they are used: compiled to tables, without torch and transformers."""

from ir3de.serving.compiled import CompiledRouter, Route
from ir3de.serving.tables import Table
from ir3de.serving.window import Window

__all__ = ["CompiledRouter", "Route", "Table", "Window"]
