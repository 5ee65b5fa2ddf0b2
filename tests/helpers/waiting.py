"""Wait for what another thread or process does: until it is done, and no fixed time."""

import time


def wait_until(true, seconds=30.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"it did not happen in {seconds:g} s"
        time.sleep(0.01)
