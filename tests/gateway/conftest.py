"""A compiled router, words that go to each of its experts, and a gateway with one upstream."""

import openai
import pytest

from ir3de.compiling.router import compile_router
from ir3de.serving import CompiledRouter
from tests.gateway.running import NAMES, running, settings
from tests.serving.routers import WORDS, saved


@pytest.fixture(scope="session")
def router(tmp_path_factory):
    """Return the folder of a compiled router."""
    folder = saved(tmp_path_factory.mktemp("gateway") / "router", "naive_bayes")
    compile_router(str(folder))
    return folder


@pytest.fixture(scope="session")
def word(router):
    """Return a word that goes to each expert."""
    found = {}
    compiled = CompiledRouter.load(router / "compiled")
    for i in range(WORDS - 1):
        found.setdefault(compiled.route(f"w{i}").expert, f"w{i}")
    assert set(found) == set(NAMES)
    return found


@pytest.fixture
def running_loop():
    with running() as found:
        yield found


@pytest.fixture
def upstream(running_loop):
    return running_loop.upstream()


@pytest.fixture
def gateway(running_loop, router, upstream):
    """Return a gateway before ``upstream``, without keys."""
    return running_loop.gateway(settings(router, upstream))


@pytest.fixture
def client(gateway):
    """Return the official client, which does not try again by itself."""
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0, timeout=10) as found:
        yield found
