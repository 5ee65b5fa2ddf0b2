"""Embedding tables and tokenizers from folders and GGUF files, and what is said when there are none."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from ir3de.pretrained.embeddings import load_embedding_table, table_fingerprint
from ir3de.pretrained.loading import load_tokenizer
from ir3de.pretrained.tokenizer import TextTokenizer
from tests.helpers.text import word_tokenizer

TABLE_VD = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))


def test_one_safetensors_file(tmp_path):
    save_file({"model.embed_tokens.weight": TABLE_VD, "lm_head.weight": TABLE_VD + 1}, tmp_path / "model.safetensors")
    assert torch.equal(load_embedding_table(str(tmp_path)), TABLE_VD)


def test_half_precision_becomes_float32(tmp_path):
    save_file({"transformer.wte.weight": TABLE_VD.bfloat16()}, tmp_path / "model.safetensors")
    table_VD = load_embedding_table(str(tmp_path))
    assert table_VD.dtype == torch.float32
    assert torch.equal(table_VD, TABLE_VD.bfloat16().float())


def test_sharded_weights_are_found_by_their_index(tmp_path):
    save_file({"model.norm.weight": torch.ones(4)}, tmp_path / "a.safetensors")
    save_file({"model.embed_tokens.weight": TABLE_VD}, tmp_path / "b.safetensors")
    index = {"weight_map": {"model.norm.weight": "a.safetensors", "model.embed_tokens.weight": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(load_embedding_table(str(tmp_path)), TABLE_VD)


def test_gguf_gives_the_table(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
    writer.add_tensor("token_embd.weight", TABLE_VD.numpy())
    writer.add_tensor("output_norm.weight", np.ones(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert torch.equal(load_embedding_table(str(tmp_path / "x.gguf")), TABLE_VD)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_table_with_nan_is_refused(tmp_path, bad):
    table_VD = TABLE_VD.clone()
    table_VD[3, 1] = bad
    save_file({"model.embed_tokens.weight": table_VD}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="row of token id 3"):
        load_embedding_table(str(tmp_path))


@pytest.mark.parametrize("content", ["nothing", "truncated", "no table", "two tables"])
def test_what_is_wrong_with_a_folder_is_said(tmp_path, content):
    weights = {"model.embed_tokens.weight": TABLE_VD}
    if content == "no table":
        weights = {"lm_head.weight": TABLE_VD}
    elif content == "two tables":
        weights["encoder.embed_tokens.weight"] = TABLE_VD + 1
    if content != "nothing":
        save_file(weights, tmp_path / "model.safetensors")
    if content == "truncated":
        (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-3])
    message = {
        "nothing": "weights file model.safetensors",
        "truncated": "no whole safetensors file",
        "no table": "Found no input embedding table",
        "two tables": "Expected one input embedding table",
    }[content]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_embedding_table(str(tmp_path))


@pytest.mark.parametrize("load", [load_embedding_table, load_tokenizer])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:no-such-package-here", "package `no-such-package-here` to be installed"),
        ("package:pytest", "it has 0"),
        ("./nowhere", "nothing is there"),
        ("a/b/c", "nothing is there"),
        ("model.gguf", "nothing is there"),
    ],
)
def test_a_source_that_is_not_there_is_named(load, source, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(source)


@pytest.mark.parametrize("load", [load_embedding_table, load_tokenizer])
def test_a_hub_id_without_a_hub_is_explained(load, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="Could not get `someone/some-model`"):
        load("someone/some-model")


def test_the_fingerprint_is_of_shape_and_values():
    assert table_fingerprint(TABLE_VD) == table_fingerprint(TABLE_VD.clone())
    assert len({table_fingerprint(t) for t in (TABLE_VD, TABLE_VD.view(4, 9), TABLE_VD + 1)}) == 3


def test_a_saved_tokenizer_comes_back_with_its_fingerprint(tmp_path):
    tokenizer = word_tokenizer()
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.fingerprint == tokenizer.fingerprint != word_tokenizer(prefix="x").fingerprint
    assert [ids.tolist() for ids in loaded.encode(["w1 w3", ""])] == [[1, 3], []]


def test_text_is_never_truncated_padded_or_given_special_tokens():
    backend = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    backend.enable_truncation(1)
    backend.enable_padding(length=9)
    assert [len(ids) for ids in TextTokenizer(backend).encode(["a", "b"])] == [1, 1]
    assert backend.truncation is None
    assert backend.padding is None


def test_offsets_are_of_characters():
    ((ids, spans),) = word_tokenizer().encode_with_offsets(["w2 über w5"])
    assert ids.tolist() == [2, 19, 5]
    assert ["w2 über w5"[a:b] for a, b in spans] == ["w2", "über", "w5"]
