"""Encoders in an older form: weights in a PyTorch file, the tokenizer as a SentencePiece model alone."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from ir3de.pretrained import loading, sentencepiece_model
from ir3de.pretrained.encoder import load_encoder
from ir3de.pretrained.hidden_states import HiddenStates
from ir3de.pretrained.loading import load_tokenizer
from tests.helpers.deberta import save_deberta


@pytest.fixture(scope="module")
def deberta(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "deberta"
    return folder, *save_deberta(folder)


@pytest.mark.parametrize(
    "text",
    [
        "the cat sat on the mat",
        "  two  spaces ",
        "tab\there\nnew line",
        pytest.param("ﬁ x² ½ １２", id="characters that NFKC changes"),
        "naïve cafe\u0301",
        "日本",
        "a",
    ],
)
def test_ids_are_those_of_the_sentencepiece_model(deberta, text):
    folder, _, processor = deberta
    assert load_tokenizer(str(folder)).encode([text])[0].tolist() == processor.encode(text)


def test_vectors_are_the_models_own_in_float32(deberta):
    folder, model, processor = deberta
    features = HiddenStates(str(folder), pooling="first")
    ids = processor.encode("a cat and a dog")
    with torch.inference_mode():
        expected = model(torch.tensor([[1, *ids, 2]])).last_hidden_state[0, 0]  # [CLS] and [SEP] around
        found = features(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_pytorch_file_that_would_run_code_is_refused(deberta, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "was run"), "w"))

    folder = tmp_path / "hostile"
    folder.mkdir()
    (folder / "config.json").write_bytes((deberta[0] / "config.json").read_bytes())
    torch.save({"deberta.x": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="more than tensors in it, which is not read"):
        load_encoder(str(folder))
    assert not (tmp_path / "was run").exists()


def test_weights_that_are_missing_are_refused(deberta, tmp_path):
    folder = tmp_path / "partial"
    folder.mkdir()
    (folder / "config.json").write_bytes((deberta[0] / "config.json").read_bytes())
    state = torch.load(deberta[0] / "pytorch_model.bin", weights_only=True)
    torch.save({name: value for name, value in state.items() if "layer.1" not in name}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="16 are missing, such as encoder.layer.1"):
        load_encoder(str(folder))


def test_without_the_package_the_message_names_it(deberta, tmp_path, monkeypatch):
    monkeypatch.setattr(sentencepiece_model, "find_spec", lambda name: None)

    def refuse(*_, **__):  # as transformers does where sentencepiece is not installed
        raise ValueError("`tiktoken` is required to read a `tiktoken` file. Install it with `pip install tiktoken`.")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse)
    loading._load.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'ir3de\[sentencepiece\]'"):
        load_tokenizer(str(deberta[0]))
