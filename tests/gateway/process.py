"""The gateway as a program, with what it writes to its log."""

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Program:
    """``python -m ir3de.gateway`` in a process of its own; ``log`` is what it has written so far."""

    def __init__(self, folder, config, environment):
        path = folder / "gateway.yaml"
        path.write_text(json.dumps({"port": 0, **config}))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ir3de.gateway", "--config", str(path)],
            stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **environment},
        )  # fmt: skip
        self._lines = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._ready.wait(60), self.log
        self.address = re.search(r"answering at (\S+)/v1", self.log)[1]

    @property
    def log(self):
        return "".join(self._lines)

    def _read(self):
        for line in self.process.stderr:
            self._lines.append(line)
            if "answering at" in line:
                self._ready.set()
        self._ready.set()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)


@contextmanager
def program(folder, config, **environment):
    found = Program(folder, config, environment)
    try:
        yield found
    finally:
        found.end()
