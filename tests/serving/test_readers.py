"""What reads text is kept when a router takes the place of one with the same tokenizer, and made anew otherwise."""

import json

import pytest

from ir3de.compiling.router import compile_router
from ir3de.routers import load_closed_form
from ir3de.serving import CompiledRouter
from ir3de.serving.artifact import array_bytes, read_compiled, write_compiled
from tests.helpers.counts import random_share
from tests.serving.routers import byte_pair_router, byte_pair_tokenizer, saved


@pytest.mark.parametrize("pieces", ["byte pairs", "words"])
def test_a_router_shares_what_reads_text_with_one_of_the_same_tokenizer(quick_check, tmp_path, pieces):
    folder = byte_pair_router(tmp_path / "router") if pieces == "byte pairs" else saved(tmp_path / "router", "mean")
    before = CompiledRouter.load(compile_router(str(folder)))
    changed = load_closed_form(folder)
    changed.add_expert("zoology", random_share(9, num_words=changed.statistics.vocab_size))
    changed.save_pretrained(folder)
    compile_router(str(folder))
    alone, after = CompiledRouter.load(folder / "compiled"), CompiledRouter.load(folder / "compiled", like=before)
    assert after.reader is before.reader
    assert after.reader is not alone.reader
    assert (after.reference, after.not_fast) == (before.reference, before.not_fast)
    assert len(after.expert_names) == 1 + len(before.expert_names)
    for text in ("w1 w2 w3", "the lazy dog <|end|> jumps", "Größe 速い"):
        assert after.route(text).scores.tolist() == alone.route(text).scores.tolist()


def test_a_router_with_another_tokenizer_shares_nothing(quick_check, tmp_path):
    before = CompiledRouter.load(compile_router(str(byte_pair_router(tmp_path / "one"))))
    other = byte_pair_router(tmp_path / "other", byte_pair_tokenizer("digits"))
    alone = CompiledRouter.load(compile_router(str(other)))
    after = CompiledRouter.load(other / "compiled", like=before)
    assert after.reader is not before.reader
    assert after.reference is not before.reference
    assert after.read("in 12345 steps").ids_T.tolist() == alone.read("in 12345 steps").ids_T.tolist()
    assert before.read("in 12345 steps").ids_T.tolist() != after.read("in 12345 steps").ids_T.tolist()


@pytest.mark.parametrize("key", ["versions", "pattern"])
def test_a_reader_that_was_made_otherwise_is_not_shared(quick_check, tmp_path, key):
    folder = compile_router(str(byte_pair_router(tmp_path / "router")))
    before = CompiledRouter.load(folder)
    config = json.loads((folder / "compiled.json").read_text())
    if key == "versions":
        config["reader"]["checked"]["versions"]["tiktoken"] = "0.0.1"
    else:
        config["reader"]["pattern"] = r"\S+|\s+"
    (folder / "compiled.json").write_text(json.dumps(config))
    after = CompiledRouter.load(folder, like=before)
    assert after.reader is not before.reader
    assert (after.not_fast is None) == (key == "pattern")


def test_a_reader_that_cannot_be_made_is_said(quick_check, tmp_path):
    folder = compile_router(str(byte_pair_router(tmp_path / "router")))
    files = read_compiled(folder)
    config = {key: value for key, value in files.config.items() if key not in ("format", "files")}
    contents = {name: path.read_bytes() for name, path in files.files.items()}
    ids = files.array("ranks_ids").copy()
    ids[1] = ids[0]
    unclosed = {**config, "reader": {**config["reader"], "pattern": "("}}
    for changed, others in ((unclosed, {}), (config, {"ranks_ids.npy": array_bytes(ids)})):
        write_compiled(folder, changed, contents | others)
        with pytest.raises(ValueError, match=r"What reads text in .*compiled.* was changed .*Compile the router again"):
            CompiledRouter.load(folder)


def test_a_loaded_router_reads_on_when_its_files_are_gone(tmp_path):
    """The reference tokenizer is made when it is first needed, which may be after the router was replaced."""
    folder = compile_router(str(saved(tmp_path / "router", "mean")))
    compiled, expected = CompiledRouter.load(folder), CompiledRouter.load(folder).route("w1 w2").scores.tolist()
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    assert compiled.route("w1 w2").scores.tolist() == expected
