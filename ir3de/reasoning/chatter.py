"""Keeps lm-eval from talking meanwhile: a command has one progress bar, its own."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import lm_eval.api.task


@contextmanager
def without_chatter() -> Iterator[None]:
    """Let lm-eval report errors only, and show no progress bar of its own or of data sets."""
    tqdm, bars = lm_eval.api.task.tqdm, datasets.are_progress_bars_disabled()
    lm_eval.api.task.tqdm = _plain  # its bar over contexts cannot be switched off
    datasets.disable_progress_bars()
    try:
        with errors_only():
            yield
    finally:
        lm_eval.api.task.tqdm = tqdm
        if not bars:
            datasets.enable_progress_bars()


@contextmanager
def errors_only() -> Iterator[None]:
    """Let lm-eval report errors only."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _plain(items: Iterable[Any], **_: Any) -> Iterable[Any]:
    return items
