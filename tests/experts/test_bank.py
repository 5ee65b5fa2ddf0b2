"""The bank: loading, averages, fingerprints, and what it refuses."""

import pytest
import torch

from ir3de.experts.bank import ExpertBank
from tests.experts.fakes import save_bank, tiny_llama, tokenizer


def test_loads_what_was_saved(tmp_path):
    bank = ExpertBank(save_bank(tmp_path))
    assert bank.names == ("a", "b", "c")
    model = bank.load("b")
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    for mine, saved in zip(model.parameters(), tiny_llama(1).parameters(), strict=True):
        assert torch.equal(mine, saved)


def test_loads_in_one_precision(tmp_path):
    bank = ExpertBank(save_bank(tmp_path), dtype="bfloat16")
    assert bank.load("a").dtype == torch.bfloat16
    assert bank.average().dtype == torch.bfloat16


@pytest.mark.parametrize("tied", [False, True])
def test_average_is_the_mean_of_every_weight(tmp_path, tied):
    average = ExpertBank(save_bank(tmp_path, tied=tied)).average().state_dict()
    states = [tiny_llama(seed, tied=tied).state_dict() for seed in range(3)]
    for key, value in average.items():
        expected = torch.stack([state[key].double() for state in states]).mean(0)
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_average_of_different_architectures_is_refused(tmp_path):
    experts = save_bank(tmp_path, ["a", "b"])
    tiny_llama(0, hidden=32).save_pretrained(tmp_path / "b")
    with pytest.raises(ValueError, match="`a` has hidden_size 16 and `b` has 32"):
        ExpertBank(experts).average()


def test_fingerprint_is_of_the_content(tmp_path):
    bank = ExpertBank(save_bank(tmp_path, ["a", "b"]))
    assert bank.fingerprint("a") != bank.fingerprint("b")
    before = bank.fingerprint("a")
    tiny_llama(7).save_pretrained(tmp_path / "a")
    assert ExpertBank(bank.sources).fingerprint("a") != before
    tiny_llama(0).save_pretrained(tmp_path / "a")
    assert ExpertBank(bank.sources).fingerprint("a") == before


def test_experts_that_are_not_trained_yet(tmp_path):
    save_bank(tmp_path, ["a"])
    (tmp_path / "a" / "training.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"\['b', 'c'\].*python main.py train-experts --config"):
        ExpertBank.from_folder(tmp_path, ["a", "b", "c"])


def test_one_expert_is_no_choice(tmp_path):
    with pytest.raises(ValueError, match="at least two experts"):
        ExpertBank({"a": tmp_path})


def test_unknown_and_empty_experts(tmp_path):
    (tmp_path / "b").mkdir()
    bank = ExpertBank({**save_bank(tmp_path, ["a"]), "b": tmp_path / "b"})
    with pytest.raises(ValueError, match=r"one of the experts \['a', 'b'\], but got `z`"):
        bank.load("z")
    with pytest.raises(ValueError, match=r"Expert `b`: Expected config.json and \*.safetensors"):
        bank.load("b")


def test_truncated_weights_are_named(tmp_path):
    bank = ExpertBank(save_bank(tmp_path, ["a", "b"]))
    weights = tmp_path / "a" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ValueError, match="Expert `a`: Expected a causal language model"):
        bank.load("a")


def test_another_tokenizer_is_refused(tmp_path):
    bank = ExpertBank(save_bank(tmp_path, ["a", "b"]))
    bank.check_tokenizer(tokenizer())
    with pytest.raises(ValueError, match="`a` has another tokenizer.*64 of 64 entries differ, such as 'wx0', None"):
        bank.check_tokenizer(tokenizer("x"))


def test_a_larger_vocabulary_is_refused(tmp_path):
    bank = ExpertBank(save_bank(tmp_path, ["a", "b"]))
    larger = tokenizer()
    larger.vocab_size = 65
    with pytest.raises(ValueError, match="`a` knows 64 ids, but the data's tokenizer has 65"):
        bank.check_tokenizer(larger)
