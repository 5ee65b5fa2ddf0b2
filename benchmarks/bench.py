"""Every benchmark against the rivals, one after the other: a table, figures, and every number as JSON.

    make bench                                          # makes the rivals' environment, and runs all
    make bench PROMPTS="train.jsonl test.jsonl"         # measures accuracy and confidence on these prompts, too
    python benchmarks/bench.py --rivals .venv-rivals/bin/python [--into runs/bench]

Each part is a benchmark of its own, run on one core (the gateway, its upstream and its clients share all of them), in
which everything that is compared is measured in turns: figures of different parts are not compared. A run that was
stopped goes on with the parts that are missing, if it is of the same code and, where they are used, the same prompts.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prompt_files import prompts_of
from report import markdown, print_report
from report_figures import save_decisions, save_serving

from ir3de.files import replace_file

HERE = Path(__file__).parent
PARTS = {
    "fit": ["fit_from_counts.py"],
    "decisions": ["decisions.py"],
    "accuracy": ["accuracy.py"],
    "confidence": ["confidence.py"],
    "experts": ["many_experts.py"],
    "gateway": ["gateway.py", "--clients", "1", "128", "512", "--rounds", "2"],
}
WITH_RIVALS, WITH_PROMPTS = ("decisions", "accuracy"), ("accuracy", "confidence")


def machine() -> dict[str, str | int]:
    """Return what the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.is_file()
        else []
    )
    packages = ("numpy", "torch", "tokenizers", "tiktoken", "aiohttp")
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def fingerprint(name: str, prompts: list[Path] | None) -> str:
    """Return the SHA-256 of what a part's figures are of: all code, and the prompts, if it uses them."""
    code = [*sorted(HERE.rglob("*.py")), *sorted((HERE.parent / "ir3de").rglob("*.py")), *sorted(HERE.rglob("*.txt"))]
    digest = hashlib.sha256()
    used = prompts if prompts and name in WITH_PROMPTS else []
    for path in [*code, *used]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def done_before(path: Path, of: str) -> bool:
    """Return whether a part is there, and of the same code and prompts."""
    return path.is_file() and json.loads(path.read_text())["of"] == of


def run(name: str, into: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one part, whose tables go to the terminal, and return its numbers and its seconds.

    Raises:
        SystemExit: if it fails.
    """
    unfinished = into / f".{name}.json"
    command = [sys.executable, str(HERE / PARTS[name][0]), *PARTS[name][1:], "--json", str(unfinished)]
    if name in WITH_RIVALS:
        command += ["--rivals", arguments.rivals, "--log", str(into / "rivals.log")]
    if name in WITH_PROMPTS and arguments.prompts:
        command += ["--prompts", *map(str, arguments.prompts)]
    start = time.perf_counter()
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        sys.exit(f"The part {name} failed (status {done.returncode}). Run it alone: {' '.join(command)}")
    numbers = json.loads(unfinished.read_text())
    unfinished.unlink()
    return {"numbers": numbers, "took_seconds": time.perf_counter() - start}


def main() -> None:
    """Run what is missing, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", default=".venv-rivals/bin/python", help="the Python of the rivals' environment")
    parser.add_argument("--prompts", type=Path, nargs=2, help="JSONL files of training and test prompts")
    parser.add_argument("--into", type=Path, default=Path("runs/bench"), help="where the results go")
    arguments = parser.parse_args()
    if not Path(arguments.rivals).exists():
        parser.error(f"there is no `{arguments.rivals}`: `make bench` makes the rivals' environment")
    prompts_of(parser, arguments.prompts)  # before any part takes its minutes
    parts = arguments.into / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": machine(), "took_seconds": {}}
    for number, name in enumerate(PARTS, start=1):
        done, of = parts / f"{name}.json", fingerprint(name, arguments.prompts)
        if done_before(done, of):
            print(f"[{number}/{len(PARTS)}] {name}: done before; remove {parts} to begin anew", flush=True)
        else:
            print(f"[{number}/{len(PARTS)}] {name}: {' '.join(PARTS[name])}", flush=True)
            found = {"of": of, **run(name, arguments.into, arguments)}
            replace_file(done, json.dumps(found, indent=1).encode())
        part = json.loads(done.read_text())
        result[name], result["took_seconds"][name] = part["numbers"], part["took_seconds"]
    replace_file(arguments.into / "bench.json", json.dumps(result, indent=1).encode())
    replace_file(arguments.into / "bench.md", markdown(result).encode())
    save_decisions(result, arguments.into / "decisions.png")
    save_serving(result, arguments.into / "serving.png")
    shutil.rmtree(parts)
    print_report(result)
    print(f"written {arguments.into}/bench.json, bench.md, decisions.png and serving.png")


if __name__ == "__main__":
    main()
