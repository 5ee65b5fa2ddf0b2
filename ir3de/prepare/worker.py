"""A process that tokenizes: ``python -m ir3de.prepare.worker``, told what to do on its standard input.

It imports little, since each of them begins with that, and it ends when its input does, however the main process ended.
"""

import os
import pickle
import signal
import sys

import numpy as np

from ir3de.pretrained.tokenizer import TextTokenizer


def main() -> None:
    """Read a tokenizer's files, then texts until there are no more; answer with their token ids and each one's end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the others
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # processes are the parallelism
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    try:
        tokenizer = TextTokenizer.from_files(pickle.load(sys.stdin.buffer))
        while True:
            ids = tokenizer.encode(pickle.load(sys.stdin.buffer))
            pickle.dump((np.concatenate(ids), np.cumsum([len(one) for one in ids]).tolist()), answers, protocol=5)
            answers.flush()
    except (EOFError, BrokenPipeError):
        os._exit(0)  # nobody asks any more, and there is nothing to flush


if __name__ == "__main__":
    main()
