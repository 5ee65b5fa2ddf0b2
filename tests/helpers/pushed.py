"""A hub to push to, and a router to push: fixtures of the tests of pushing and fetching."""

import pytest

from ir3de.routers import RidgeRouter
from tests.helpers.counts import counts
from tests.helpers.hub import TOKEN, FakeHub
from tests.helpers.text import embeddings


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with FakeHub() as served:
        served.install(monkeypatch, tmp_path / "home")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served


@pytest.fixture
def router():
    made = RidgeRouter(embeddings=embeddings())
    made.fit(counts())
    return made
