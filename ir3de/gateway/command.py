"""``python main.py serve``: the config is read, the router and local experts are loaded, requests are answered."""

import argparse
import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

from ir3de.configs import find_config, read_config
from ir3de.gateway.keys import ADMIN_KEYS, CLIENT_KEYS, Keys, WithoutSecrets, keys_of, leave_out_requests
from ir3de.gateway.roster import upstream_key
from ir3de.gateway.server import Gateway
from ir3de.gateway.settings import GatewaySettings

try:
    from uvloop import run as run_loop  # passes on a fifth to a half more
except ImportError:
    from asyncio import run as run_loop  # type: ignore[assignment]

_LOG = logging.getLogger(__name__)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(arguments: Sequence[str]) -> None:
    """Answer requests until the program is told to stop.

    Raises:
        FileNotFoundError: if the router, a config or an expert is not there.
        ValueError: if the config is wrong, or a key is missing.
    """
    given = list(arguments)
    settings = read_settings(given)
    keys = _keys(settings, os.environ)
    formatter = WithoutSecrets(_secrets(settings, os.environ))
    _log_to_stderr(formatter)

    def read_again() -> GatewaySettings:
        found = read_settings(given)
        formatter.secrets |= _secrets(found, os.environ)
        return found

    run_loop(_run(Gateway(settings, keys=keys, environment=os.environ, read_again=read_again)))


def read_settings(arguments: Sequence[str]) -> GatewaySettings:
    """Return the config that the arguments name, with what they change of it.

    Raises:
        FileNotFoundError: if a config is not there.
        ValueError: if it is wrong.
    """
    parser = _Parser(prog="main.py serve", description=serve.__doc__.split("\n")[0], exit_on_error=False)  # type: ignore[union-attr]
    parser.add_argument("-c", "--config", action=_NamedConfig, help="A config's name or path; may be repeated.")
    parser.add_class_arguments(GatewaySettings)
    try:
        given = parser.instantiate(parser.parse_args(list(arguments)))
    except (argparse.ArgumentError, TypeError) as error:
        raise ValueError(str(error)) from error
    return GatewaySettings(**{name: given[name] for name in GatewaySettings.__dataclass_fields__})


class _Parser(ArgumentParser):
    """Parses without abbreviations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)


class _NamedConfig(ActionConfigFile):
    """``--config serve/two_upstreams.yaml``, found by name."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, cfg, json.dumps(read_config(find_config(values))), option_string)


def _keys(settings: GatewaySettings, environment: Mapping[str, str]) -> Keys:
    keys = Keys(keys_of(environment, CLIENT_KEYS), keys_of(environment, ADMIN_KEYS))
    if not keys.client_needed and settings.host not in _LOOPBACK and not settings.open_to_all:
        raise ValueError(
            f"Without {CLIENT_KEYS} everybody who reaches {settings.host} could ask. Set it to keys, separated by"
            " commas; or listen on 127.0.0.1; or say `open_to_all: true`."
        )
    return keys


def _secrets(settings: GatewaySettings, environment: Mapping[str, str]) -> set[str]:
    upstreams = {upstream_key(name, one, environment) for name, one in settings.upstreams.items()}
    return {*keys_of(environment, CLIENT_KEYS), *keys_of(environment, ADMIN_KEYS), *(key for key in upstreams if key)}


def _log_to_stderr(formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(leave_out_requests)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("ir3de").setLevel(logging.INFO)


async def _run(gateway: Gateway) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop_or_leave(stopped))
    try:
        await gateway.start()
        _LOG.info("answering at %s/v1; model `auto` routes", gateway.address)
        await stopped.wait()
        _LOG.info("stopping: %d requests are being answered", gateway.running)
    finally:
        await gateway.stop()


def _stop_or_leave(stopped: asyncio.Event) -> Callable[[], None]:
    def stop() -> None:
        if stopped.is_set():  # asked twice
            with suppress(Exception):
                logging.shutdown()
            os._exit(130)
        stopped.set()

    return stop
