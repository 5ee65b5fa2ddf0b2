"""What the terminal shows: tables that are never cut to a narrow pipe, and no chatter of other libraries."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from transformers.utils import logging as transformers_logging

PIPE_WIDTH = 170  # a file or a pipe has no width of its own, and rich would take 80
CHATTER = ("💡 Tip", "GPU available", "TPU available", "Loading `train_dataloader`")


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


@contextmanager
def without_chatter() -> Iterator[None]:
    """Let Lightning say nothing but warnings meanwhile: what it reports of one fit is noise among many."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning_utilities", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The number of training batches")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def quieten() -> None:
    """Leave out progress bars and advice that are nothing to a user of this program; warnings of substance stay."""
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    warnings.filterwarnings("ignore", message=r".*configure_optimizers` returned `None`")  # a closed-form router
    warnings.filterwarnings("ignore", message=".*validation_step` but have no `val_dataloader`")  # measured at the end
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not record.getMessage().startswith(CHATTER)
    )
