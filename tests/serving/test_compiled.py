"""A compiled router's folder: light to load, whole or refused, and never another router's."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ir3de.compiling.router import compile_router
from ir3de.routers import RandomRouter, load_closed_form, load_router
from ir3de.serving import CompiledRouter, Window
from ir3de.serving.source import compiled_folder
from tests.helpers.counts import NAMES, random_share
from tests.serving.routers import WORDS, byte_pair_router, byte_pair_tokenizer, random_prompts, saved

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "router", "entropy_top_7")


def words(ids):
    return " ".join(f"w{i}" for i in ids)


def test_routing_loads_neither_torch_nor_transformers(folder):
    compiled = compile_router(str(folder))
    program = (
        "import sys; from ir3de.serving import CompiledRouter;"
        f"print(CompiledRouter.load({str(compiled)!r}).route('w1 w2 w3').expert_index);"
        "print(sorted({'torch', 'transformers', 'lightning', 'pandas', 'rich', 'jsonargparse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == [str(int(load_router(folder).route(["w1 w2 w3"]).expert_B)), "[]"]


def test_text_is_decided_as_its_ids(folder):
    compiled = CompiledRouter.load(compile_router(str(folder)))
    prompts = random_prompts(100)
    texts = [words(ids) for ids in prompts]
    expected = load_router(folder).route(texts).expert_B.tolist()
    assert [compiled.decide_text(text) for text in texts] == expected
    assert [route.expert_index for route in compiled.route_many(texts)] == expected
    assert [compiled.route(text).expert_index for text in texts] == expected


def test_the_identity_is_that_of_the_router(folder):
    compiled = CompiledRouter.load(compile_router(str(folder)))
    assert compiled.identity == load_router(folder).identity_hash()
    assert compiled.expert_names == load_router(folder).expert_names


@pytest.mark.parametrize("name", ["rank", "winner", "tokenizer"])
@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
def test_a_damaged_file_is_refused_and_named(folder, name, damage):
    compiled = compile_router(str(folder))
    path = next(compiled.glob(f"{name}-*"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content if damage == "changed" else content[:-5])
    with pytest.raises(ValueError, match=f"{name}-.* is missing, truncated or was changed"):
        CompiledRouter.load(compiled)


@pytest.mark.parametrize("content, message", [
    ("{", "truncated or was changed"),
    ("{}", "truncated or was changed"),
    ("[" * 10_000, "truncated or was changed"),
    ('{"format": 99}', "Expected format 2"),
    ('{"format": 1}', "Expected format 2"),
])  # fmt: skip
def test_a_damaged_config_is_refused(folder, content, message):
    compiled = compile_router(str(folder))
    (compiled / "compiled.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        CompiledRouter.load(compiled)
    assert compiled_folder(folder) is None, "it is compiled again"


def test_no_compiled_router_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a compiled router"):
        CompiledRouter.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="Expected a saved or a compiled router"):
        compiled_folder(tmp_path)


def _contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_an_earlier_version_compiled_is_compiled_again(folder):
    compiled = compile_router(str(folder))
    before = _contents(compiled)
    (compiled / "alarm").mkdir()
    (compiled / "alarm" / "compiled.json").write_text('{"format": 1}')
    (compiled / "compiled.json").write_text('{"format": 1, "files": {}}')
    assert compiled_folder(folder) is None
    compile_router(str(folder))
    assert _contents(compiled) == before


def test_compiling_again_leaves_equal_bytes_and_nothing_else(folder):
    compiled = compile_router(str(folder))
    before = _contents(compiled)
    (compiled / "rank-0123456789abcdef.npy").write_bytes(b"left by a command that was killed")
    compile_router(str(folder))
    assert _contents(compiled) == before


def test_a_router_that_was_changed_is_compiled_again_and_back_again(folder):
    compiled = compile_router(str(folder))
    before = _contents(compiled)
    assert compiled_folder(folder) == compiled_folder(compiled) == compiled
    loaded = load_closed_form(folder)
    loaded.add_expert("new", random_share(9, num_words=WORDS, validation=12))
    loaded.save_pretrained(folder)
    assert compiled_folder(folder) is None
    assert CompiledRouter.load(compile_router(str(folder))).expert_names == ("code", "law", "maths", "new")
    loaded.remove_expert("new")
    loaded.save_pretrained(folder)
    compile_router(str(folder))
    assert _contents(compiled) == before, "calibration is made again, too"


def test_a_reader_keeps_the_router_that_it_has_loaded(folder):
    old = CompiledRouter.load(compile_router(str(folder)))
    prompts = random_prompts(50)
    before = [old.decide(ids) for ids in prompts]
    saved(folder, "entropy_top_7", names=("a", "b"))
    compile_router(str(folder))
    assert [old.decide(ids) for ids in prompts] == before
    assert CompiledRouter.load(compile_router(str(folder))).expert_names == ("a", "b")


def test_a_router_that_is_no_table_is_refused(tmp_path):
    router = RandomRouter()
    router.begin(NAMES, torch.ones(3))
    router.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"a table over the vocabulary .* but it holds a RandomRouter"):
        compile_router(str(tmp_path))


def test_the_smallest_types_are_stored(folder):
    compiled = compile_router(str(folder))
    found = {path.name.split("-")[0]: np.load(path).dtype for path in compiled.glob("[!a]*.npy")}
    assert found == {"rank": np.uint8, "winner": np.uint8}


@pytest.mark.parametrize(
    "keep, expected", [("first", [1, 2, 3, 4, 5]), ("last", [6, 7, 8, 9, 10]), ("ends", [1, 2, 3, 9, 10])]
)
def test_a_window_of_tokens_reads_them_and_says_so(folder, keep, expected):
    window = Window(keep, 5, "tokens")
    full = CompiledRouter.load(compile_router(str(folder)))
    compiled = CompiledRouter.load(folder / "compiled", window=window)
    ids = list(range(1, 11))
    for prompt in (ids, words(ids)):
        route = compiled.route(prompt)
        assert (route.tokens, route.window) == (5, window)
        assert np.array_equal(route.scores, full.table.scores(expected))
    assert compiled.decide(np.array(ids)) == compiled.decide_text(words(ids)) == full.decide(np.array(expected))
    assert compiled.route(ids[:5]).window is None, "all of it was read"


@pytest.mark.parametrize("keep, expected", [("first", [1, 2, 3]), ("last", [7, 8, 9]), ("ends", [1, 2, 8, 9])])
def test_a_window_of_characters_is_cut_before_the_text_is_read(folder, keep, expected):
    size = 12 if keep == "ends" else 9
    window = Window(keep, size, "characters")
    full = CompiledRouter.load(compile_router(str(folder)))
    compiled = CompiledRouter.load(folder / "compiled", window=window)
    text = words(range(1, 10)) if keep != "last" else " " + words(range(1, 10))
    read = []
    encode = compiled.reader.encode
    compiled.reader.encode = lambda part: read.append(part) or encode(part)
    route = compiled.route(text)
    assert sum(len(part) for part in read) == size < len(text)
    assert (route.tokens, route.window) == (len(expected), window)
    assert np.array_equal(route.scores, full.table.scores(expected))
    assert compiled.decide_text(text) == full.decide(np.array(expected))
    assert compiled.route("w1").window is None
    with pytest.raises(ValueError, match="Expected text for a window"):
        compiled.route([1, 2, 3])


@pytest.mark.parametrize("keep", ["first", "last", "ends", "spread"])
@pytest.mark.parametrize("size", [8, 9, 15, 40])
@pytest.mark.parametrize("longer", [1, 2, 7, 1000])
def test_a_window_keeps_so_much_in_order_and_nothing_twice(keep, size, longer):
    prompt = np.arange(size + longer)
    parts = Window(keep, size, "tokens").parts(prompt)
    kept = np.concatenate(parts)
    assert len(kept) == size
    assert (np.diff(kept) > 0).all()
    assert (kept[0] == 0) == (keep != "last")
    assert (kept[-1] == prompt[-1]) == (keep != "first")
    if keep == "spread":
        gaps = [after[0] - before[-1] for before, after in itertools.pairwise(parts)]
        assert max(gaps) - min(gaps) <= 1
        assert len(parts) == 8


@pytest.mark.parametrize("arguments, message", [
    (("middle", 5, "tokens"), "one of first, last, ends, spread"),
    (("first", 5, "words"), "tokens or characters"),
    (("first", 0, "tokens"), "at least 1"),
    (("ends", 1, "tokens"), "at least 2"),
    (("spread", 7, "characters"), "at least 8"),
])  # fmt: skip
def test_impossible_windows_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Window(*arguments)


def test_below_the_threshold_the_answer_is_the_fallback_or_none_of_them(folder):
    compiled = compile_router(str(folder))
    confidences = [route.confidence for route in CompiledRouter.load(compiled).route_many(random_prompts(200))]
    threshold = float(np.median(confidences))
    for fallback in (None, "law"):
        router = CompiledRouter.load(compiled, threshold=threshold, fallback=fallback)
        for route in router.route_many(random_prompts(200)):
            sure = route.confidence >= threshold
            assert route.expert == (router.expert_names[route.expert_index] if sure else fallback)


@pytest.mark.parametrize("options, message", [
    ({"threshold": 1.5}, "from 0 to 1"),
    ({"threshold": 0.5, "fallback": "poetry"}, "Expected the fallback to be one of"),
    ({"fallback": "law"}, "Give a threshold"),
])  # fmt: skip
def test_impossible_thresholds_are_refused(folder, options, message):
    compiled = compile_router(str(folder))
    with pytest.raises(ValueError, match=message):
        CompiledRouter.load(compiled, **options)


def test_a_router_without_validation_sequences_has_no_confidence(tmp_path):
    compiled = compile_router(str(saved(tmp_path, "mean", validation=0)))
    assert CompiledRouter.load(compiled).route([1, 2]).confidence is None
    with pytest.raises(ValueError, match="no validation sequences"):
        CompiledRouter.load(compiled, threshold=0.5)


def test_the_place_of_a_prompt_that_cannot_be_routed_is_named(folder):
    compiled = CompiledRouter.load(compile_router(str(folder)))
    routes = compiled.stream([[1, 2], "w3", "", "w4"])
    assert [next(routes).tokens, next(routes).tokens] == [2, 1]
    with pytest.raises(ValueError, match="Prompt 2: Expected at least one token"):
        next(routes)


def test_a_stream_is_read_as_far_as_it_is_needed(tmp_path, quick_check):
    compiled = CompiledRouter.load(compile_router(str(byte_pair_router(tmp_path))))
    assert compiled.reader.name == "tiktoken"
    taken = []
    routes = compiled.stream(taken.append(i) or f"word {i}" for i in range(1000))
    for _ in range(3):
        next(routes)
    assert taken == [0, 1, 2]


def test_other_versions_than_were_checked_read_with_the_reference_tokenizer(tmp_path, quick_check, monkeypatch):
    compiled = compile_router(str(byte_pair_router(tmp_path)))
    monkeypatch.setattr("ir3de.serving.readers.installed_versions", lambda: {"tiktoken": None, "tokenizers": "9.9"})
    router = CompiledRouter.load(compiled)
    assert router.reader.name == "tokenizers"
    assert router.not_fast == (
        "its ids were checked with other versions than are here (tiktoken not installed, tokenizers 9.9): compile again"
    )


def test_the_check_of_a_tokenizer_is_made_once(tmp_path, quick_check, monkeypatch):
    folder = byte_pair_router(tmp_path)
    compile_router(str(folder))
    monkeypatch.setattr("ir3de.compiling.router.check_same_ids", lambda *_: pytest.fail("it was made before"))
    compile_router(str(folder))
    with pytest.raises(pytest.fail.Exception):
        compile_router(str(byte_pair_router(tmp_path, byte_pair_tokenizer("digits"))))


@pytest.mark.parametrize("reason", ["not installed", "another model"])
def test_why_tiktoken_is_not_used_is_in_the_artifact(tmp_path, monkeypatch, reason):
    if reason == "not installed":
        monkeypatch.setattr("ir3de.compiling.router.installed_versions", lambda: {"tiktoken": None})
        compiled, said = compile_router(str(byte_pair_router(tmp_path))), "tiktoken is not installed"
    else:
        compiled, said = compile_router(str(saved(tmp_path, "mean"))), "its model is WordLevel, not byte pairs"
    assert said in json.loads((compiled / "compiled.json").read_text())["reader"]["because"]
    assert said in CompiledRouter.load(compiled).not_fast
