"""What ``compiled.json`` has to say: each key and its type, checked before any of it is used."""

import math
import re
import sys
from collections.abc import Callable
from typing import Any

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TABLES = ("majority", "entropy_top_k", "mean", "embedding_mean")
_CALIBRATION = {"log_scale", "length_exponent", "shifts"}
_MOST_TOKENS = 2**31
_LARGEST_EXPONENT, _LARGEST_SHIFT = 300, 1e100  # with more, probabilities may be no numbers any more


def fault_of(config: Any) -> str | None:
    """Return what is wrong with the content of a ``compiled.json`` of this format; ``None`` if nothing is."""
    if not isinstance(config, dict):
        return "it is no object"
    for key, (holds, expected) in _KEYS.items():
        if key not in config:
            return f"`{key}` is missing"
        if not holds(config[key]):
            return f"`{key}` is not {expected}"
    if config["table"] == "entropy_top_k" and not _is_size(config["k"]):
        return "`k` is not a number of tokens"
    if config["calibration"] and len(config["calibration"]["calibration"]["shifts"]) != len(config["experts"]):
        return "`calibration` is not for so many experts"
    return None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # not so for NaN


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _are_experts(value: Any) -> bool:
    return _are_names(value) and len(set(value)) == len(value)


def _is_source(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("identity", "router_sha256"))


def _are_files(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in value.values())


def _is_reader(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("because", 0), str | None):
        return False
    if value["because"] is not None:
        return True
    checked, special = value.get("checked"), value.get("special")
    return (
        isinstance(checked, dict)
        and isinstance(checked.get("versions"), dict)
        and isinstance(value.get("pattern"), str)
        and isinstance(special, dict)
        and all(type(one) is int and 0 <= one < _MOST_TOKENS for one in special.values())
        and _is_size(value.get("vocab_size"))
    )


def _is_calibration(value: Any) -> bool:
    if value is None:
        return True
    found = value.get("calibration") if isinstance(value, dict) else None
    if not isinstance(found, dict) or found.keys() != _CALIBRATION or not isinstance(found["shifts"], list):
        return False
    if not all(map(_is_finite, (*found["shifts"], found["log_scale"], found["length_exponent"]))):
        return False
    largest = abs(found["log_scale"]) + abs(found["length_exponent"]) * math.log(_MOST_TOKENS)
    return largest <= _LARGEST_EXPONENT and all(abs(shift) <= _LARGEST_SHIFT for shift in found["shifts"])


def _is_alarm(value: Any) -> bool:
    if value is None:
        return True
    lists = ("sequences", "uncalibrated")
    return (
        isinstance(value, dict)
        and _is_size(value.get("vocab_size"))
        and all(isinstance(value.get(key), list) for key in lists)
    )


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "source": (_is_source, "an identity and the hash of what was solved"),
    "experts": (_are_experts, "a list of different names"),
    "files": (_are_files, "an object of names and SHA-256 hashes"),
    "table": (lambda value: value in _TABLES, f"one of {', '.join(_TABLES)}"),
    "k": (lambda value: value is None or _is_size(value), "a number of tokens or null"),
    "tokenizer": (lambda value: isinstance(value, str), "a fingerprint"),
    "reader": (_is_reader, "what reads text, or why it is the tokenizer"),
    "calibration": (_is_calibration, "a calibration or null"),
    "alarm": (_is_alarm, "an alarm or null"),
}
