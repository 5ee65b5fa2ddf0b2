"""One thread for the tests' tiny tensors: thread teams of two processes on two cores mostly wait for each other."""

import os

import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)

# Minutes in a few tests each: they go first, so that no process is left alone with one of them at the end.
_LONG = ("test_promise.py", "test_settings.py", "test_cli.py", "test_compare.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: (*_LONG, item.path.name).index(item.path.name))
