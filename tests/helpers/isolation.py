"""What tests of isolated programs share."""

import shutil

import pytest

from ir3de.isolation import Limits

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
LIMITS = Limits(wall_seconds=20, cpu_seconds=10)
