"""The processes that a test has started; others of the same run may have left some (W&B's service)."""

import psutil
import pytest

_before: set[psutil.Process] = set()


def our_processes() -> list[psutil.Process]:
    """Return every process that was started since the test began, below this one."""
    return [one for one in psutil.Process().children(recursive=True) if one not in _before]


@pytest.fixture
def only_new_processes():
    """Let ``our_processes`` know what there was before the test."""
    _before.clear()
    _before.update(psutil.Process().children(recursive=True))
