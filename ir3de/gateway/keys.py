"""Keys of clients and admins from the environment, and a log that never has one."""

import hashlib
import hmac
import logging
from collections.abc import Iterable, Mapping

from aiohttp.http_exceptions import HttpProcessingError

CLIENT_KEYS, ADMIN_KEYS = "IR3DE_CLIENT_KEYS", "IR3DE_ADMIN_KEYS"
_SHORTEST = 16  # characters: a key is not to be guessed


class Keys:
    """Who may ask, and who may change what is served.

    Args:
        client: Keys of clients; without any, everybody may ask.
        admin: Keys of admins, who may ask too; without any, nobody may change anything.
    """

    def __init__(self, client: Iterable[str] = (), admin: Iterable[str] = ()) -> None:
        self._admin = [_digest(key) for key in admin]
        self._client = [_digest(key) for key in client]
        self.client_needed = bool(self._client)
        self.admin_possible = bool(self._admin)

    def is_admin(self, authorization: str | None) -> bool:
        """Tell whether an ``Authorization`` header is an admin's, in time that says nothing about the keys."""
        return _one_of(authorization, self._admin)

    def is_client(self, authorization: str | None) -> bool:
        """Tell whether an ``Authorization`` header is a client's or an admin's; see ``is_admin``."""
        return not self.client_needed or _one_of(authorization, self._client + self._admin)


def keys_of(environment: Mapping[str, str], variable: str) -> list[str]:
    """Return the keys in a variable of the environment, separated by commas; none if it is not set, or empty.

    Raises:
        ValueError: if one is too short, which is not shown; or there is none between its commas.
    """
    content = environment.get(variable, "")
    keys = [key.strip() for key in content.split(",") if key.strip()]
    if content and not keys:
        raise ValueError(f"Expected keys in {variable}, but it has none. Set it to keys, or do not set it.")
    if any(len(key) < _SHORTEST for key in keys):
        raise ValueError(
            f"Expected every key in {variable} to have at least {_SHORTEST} characters, but one is shorter."
        )
    return keys


def _one_of(authorization: str | None, digests: list[bytes]) -> bool:
    scheme, _, key = (authorization or "").partition(" ")
    given, found = _digest(key.strip()), False
    for digest in digests:  # all of them, so that the time is the same for each
        found |= hmac.compare_digest(given, digest)
    return found and scheme.lower() == "bearer"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


class WithoutSecrets(logging.Formatter):
    """Formats log records, tracebacks included, with ``***`` in the place of every known secret."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self.secrets = set(secrets)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in sorted(self.secrets, key=len, reverse=True):  # one may begin with another
            text = text.replace(secret, "***")
        return text


def leave_out_requests(record: logging.LogRecord) -> bool:
    """Drop what aiohttp says of a request that is no HTTP: it quotes lines, and one of them may be a key."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
