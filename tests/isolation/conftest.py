"""The two ways in which a program is given an identity without power."""

import pytest

from ir3de.isolation import execute
from tests.helpers.processes import only_new_processes as only_new_processes  # noqa: PLC0414 - a fixture


@pytest.fixture(autouse=True)
def _known(only_new_processes):
    """Every test here may ask for its own processes."""


@pytest.fixture(params=["as this user", "in a user namespace"])
def way(request, monkeypatch):
    """Root gives the program another user id; others, and here root too, put it into a user namespace."""
    if request.param == "in a user namespace":
        monkeypatch.setattr(execute, "spare_user", lambda: None)
