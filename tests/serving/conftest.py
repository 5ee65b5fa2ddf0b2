"""The command ``route`` on a router, and the check of tiktoken's ids made small: the whole one takes ten seconds."""

import io
import json
import sys

import pytest

from ir3de.compiling.router import compile_router
from ir3de.route_command import route
from ir3de.serving import same_ids
from tests.serving.routers import saved


@pytest.fixture(scope="module")
def router(tmp_path_factory):
    folder = saved(tmp_path_factory.mktemp("router") / "router", "entropy_top_7")
    compile_router(str(folder))
    return str(folder)


@pytest.fixture
def run(router, monkeypatch, capsysbinary):
    """Run the command on the fixture's router; return its status, its objects and what it said."""

    def run(*arguments, stdin=b"", folder=router):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = route(["--router", folder, *arguments])
        out, said = capsysbinary.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], said.decode()

    return run


@pytest.fixture
def quick_check(monkeypatch):
    monkeypatch.setattr(same_ids, "_CODE_POINTS", [*range(0x600), *range(0x600, 0x110000, 997)])
    monkeypatch.setattr(same_ids, "_LENGTH", 4)
    monkeypatch.setattr(same_ids, "_CORPUS_BYTES", 20_000)
    monkeypatch.setattr(same_ids, "vocabulary_texts", lambda tokenizer: _vocabulary_texts(tokenizer, texts=100))
    monkeypatch.setattr(same_ids, "random_texts", lambda special: _random_texts(special, texts=200))


_vocabulary_texts = same_ids.vocabulary_texts
_random_texts = same_ids.random_texts
