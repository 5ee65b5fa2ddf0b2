"""One thread for the tests' tiny tensors: thread teams of two processes on two cores mostly wait for each other."""

import os

import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)
