"""Who may ask, who may change things, and that no key is ever written anywhere."""

import logging

import aiohttp
import openai
import pytest

from ir3de.gateway.command import _keys, read_settings
from ir3de.gateway.keys import Keys, WithoutSecrets, keys_of
from ir3de.gateway.roster import upstream_key
from ir3de.gateway.settings import Upstream
from tests.gateway.running import settings
from tests.gateway.test_interface import chat

CLIENT, OTHER, ADMIN, UPSTREAM = "client-key-0123456", "other-key-01234567", "admin-key-01234567", "upstream-key-01234"


@pytest.fixture
def guarded(running_loop, router):
    """Return a gateway with keys, before an upstream with a key of its own."""
    upstream = running_loop.upstream(key=UPSTREAM)
    config = settings(router, upstream, upstreams={"up": Upstream(url=upstream.url, key_env="UP_KEY")})
    gateway = running_loop.gateway(config, client=[CLIENT, OTHER], admin=[ADMIN], environment={"UP_KEY": UPSTREAM})
    return gateway, upstream


def asked(gateway, key):
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key=key, max_retries=0) as client:
        return chat(client, "w1", model="law").choices[0].message.content


@pytest.mark.parametrize("key", [CLIENT, OTHER, ADMIN])
def test_a_known_key_may_ask_and_stays_here(guarded, key):
    gateway, upstream = guarded
    assert asked(gateway, key) == "law: w1"
    assert upstream.asked[0][0]["Authorization"] == f"Bearer {UPSTREAM}"
    assert key not in str(upstream.asked)


@pytest.mark.parametrize("key", ["wrong", CLIENT[:-1], CLIENT + "x", CLIENT.upper(), UPSTREAM, f"{CLIENT},{OTHER}"])
def test_any_other_key_is_refused_before_anything_is_read(guarded, key):
    gateway, upstream = guarded
    with pytest.raises(openai.AuthenticationError):
        asked(gateway, key)
    assert not upstream.asked


def test_without_a_bearer_key_nothing_is_shown_but_health(guarded, running_loop):
    gateway, _ = guarded

    async def call():
        async with aiohttp.ClientSession(gateway.address) as session:
            for path in ("/v1/models", "/metrics", "/admin/experts"):
                for header in (None, "", "Bearer", "Bearer ", f"Basic {ADMIN}", ADMIN, "Bearer \xff"):
                    headers = {} if header is None else {"Authorization": header}
                    async with session.get(path, headers=headers) as response:
                        assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer"), (
                            path,
                            header,
                        )
            async with session.get("/health") as response:
                assert await response.json() == {"status": "ok"}

    running_loop.call(call())


@pytest.mark.parametrize("key, status", [(CLIENT, 401), (ADMIN, 200)])
def test_only_admins_change_things(guarded, running_loop, key, status):
    async def call():
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
            for method, path in (
                ("GET", "experts"), ("DELETE", "experts/law"), ("PUT", "experts/law"), ("POST", "reload"),
            ):  # fmt: skip
                async with session.request(method, f"{guarded[0].address}/admin/{path}") as response:
                    assert response.status == status

    running_loop.call(call())


def test_without_an_admin_key_nobody_is_an_admin(gateway, running_loop):
    async def call():
        url, headers = f"{gateway.address}/admin/experts/law", {"Authorization": "Bearer "}
        async with aiohttp.ClientSession() as session, session.delete(url, headers=headers) as response:
            return response.status

    assert running_loop.call(call()) == 403


def test_an_upstream_that_refuses_our_key_is_a_failure_and_its_words_go_nowhere(running_loop, router, caplog):
    upstream = running_loop.upstream(key=UPSTREAM)
    gateway = running_loop.gateway(settings(router, upstream))
    with pytest.raises(openai.InternalServerError) as caught:
        asked(gateway, "any")
    assert UPSTREAM not in str(caught.value)
    assert UPSTREAM not in caplog.text
    assert "status: 401" in caplog.text


def test_no_key_is_in_the_log_whatever_is_logged():
    formatter = WithoutSecrets([UPSTREAM, CLIENT])
    try:
        raise ValueError(f"odd header {CLIENT}")
    except ValueError:
        import sys

        record = logging.LogRecord("x", logging.ERROR, "f", 1, "got %s", (UPSTREAM,), sys.exc_info())
    text = formatter.format(record)
    assert "got ***" in text
    assert "odd header ***" in text
    assert UPSTREAM not in text
    assert CLIENT not in text
    for secrets in ([CLIENT, f"{CLIENT}-and-more"], [f"{CLIENT}-and-more", CLIENT]):
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "got %s.", (f"{CLIENT}-and-more",), None)
        assert "got ***." in WithoutSecrets(secrets).format(record)


def test_keys_are_read_from_the_environment_and_short_ones_are_refused_unseen():
    assert keys_of({"K": f" {CLIENT}, {OTHER},"}, "K") == [CLIENT, OTHER]
    assert keys_of({}, "K") == keys_of({"K": ""}, "K") == []
    with pytest.raises(ValueError, match="Expected keys in K, but it has none"):
        keys_of({"K": " , "}, "K")
    with pytest.raises(ValueError, match="16 characters") as caught:
        keys_of({"K": f"{CLIENT},short-secret"}, "K")
    assert "short-secret" not in str(caught.value)
    assert not Keys().is_admin("Bearer ")
    assert Keys().is_client(None)


@pytest.mark.parametrize("key", ["one\ntwo-key-01234567", "schlüssel-01234567", "one\x00two-key-0123456"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(key):
    with pytest.raises(ValueError, match="`up` in the variable UP_KEY to be printable ASCII") as caught:
        upstream_key("up", Upstream(url="http://x/v1", key_env="UP_KEY"), {"UP_KEY": key})
    assert key not in str(caught.value)


def test_listening_beyond_this_machine_takes_keys(router):
    given = ["--router", str(router), "--others.local", "x", "--host", "0.0.0.0"]
    with pytest.raises(ValueError, match="everybody who reaches 0.0.0.0"):
        _keys(read_settings(given), {})
    assert _keys(read_settings(given), {"IR3DE_CLIENT_KEYS": CLIENT}).client_needed
    assert not _keys(read_settings([*given, "--open_to_all", "true"]), {}).client_needed
