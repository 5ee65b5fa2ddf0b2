"""Experts from published checkpoints, GGUF files and adapters, against the models that they were made of."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from ir3de.experts import presets
from ir3de.experts.bank import WEIGHT_AVERAGE, ExpertBank
from ir3de.experts.memory import choose_residence
from ir3de.experts.presets import Preset, llama_config
from tests.experts.fakes import VOCABULARY, save_bank, tiny_llama

IDS = torch.arange(12)[None] % VOCABULARY
TINY = Preset(hidden=16, layers=1, heads=2, mlp=32, key_value_heads=2)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits.float()


def save_published(model, path, **changes):
    """Save a state dict exactly as the paper's are: prefix `_model.`, bfloat16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"_model.{name}": value.bfloat16() for name, value in model.state_dict().items()}
    torch.save({**state, **changes}, path)
    return path


def published_path(folder, domain):
    return folder / "checkpoints" / f"llama_115000000_{domain}_seed=42_freeze_attn.pth"


def save_adapter(base, folder, *, seed, targets=("q_proj", "down_proj")):
    """Save a LoRA adapter over the model in ``base`` with weights far from zero; return what it computes."""
    torch.manual_seed(seed)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules=list(targets)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.5)
    model.save_pretrained(folder)
    return logits(model.eval())


@pytest.fixture
def tiny_preset(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", TINY)


def test_a_published_checkpoint_is_the_model_that_it_was(tmp_path, tiny_preset):
    saved = tiny_llama(3)
    path = save_published(saved, published_path(tmp_path, "physics_l1"))
    bank = ExpertBank({"a": save_bank(tmp_path, ["a"])["a"], "b": path})
    expected = tiny_llama(3)
    expected.load_state_dict({name: value.bfloat16().float() for name, value in saved.state_dict().items()})
    torch.testing.assert_close(logits(bank.load("b")), logits(expected), rtol=1e-5, atol=1e-5)
    assert bank.members == ("a", "b", WEIGHT_AVERAGE)
    assert bank.fingerprint("a") != bank.fingerprint("b")


def test_the_papers_own_shape_is_known():
    config = llama_config("115e6", vocab_size=128_002, context_length=1024)
    with torch.device("meta"):
        shapes = LlamaForCausalLM(config).state_dict()
    assert shapes["model.embed_tokens.weight"].shape == shapes["lm_head.weight"].shape == (128_002, 768)


def test_a_config_beside_the_checkpoint_is_taken(tmp_path):
    saved = tiny_llama(3)
    saved.config.save_pretrained(tmp_path / "checkpoints")
    path = save_published(saved, published_path(tmp_path, "x"))
    bank = ExpertBank({"a": save_bank(tmp_path, ["a"])["a"], "b": path})
    assert logits(bank.load("b")).shape == (1, 12, VOCABULARY)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"_model.extra": torch.zeros(2)}, "unexpected extra"),
        ({"loss": torch.zeros(2)}, "begin with `_model.`, but got `loss`"),
        ({"_model.model.norm.weight": torch.zeros(3)}, r"`model.norm.weight` of .* to be \(16,\), but got \(3,\)"),
        ({"_model.model.embed_tokens.weight": torch.zeros(9, 20)}, "none of the presets"),
        ({"_model.lm_head.weight": torch.zeros(9, 16)}, r"`lm_head.weight` of .* to be \(64, 16\), but got \(9, 16\)"),
        ({"_model.model.embed_tokens.weight": object()}, "read safely"),
    ],
)
def test_checkpoints_that_do_not_fit_are_named(tmp_path, tiny_preset, changes, message):
    path = save_published(tiny_llama(3), published_path(tmp_path, "x"), **changes)
    bank = ExpertBank({"a": save_bank(tmp_path, ["a"])["a"], "b": path})
    with pytest.raises(ValueError, match=f"Expert `b`: .*{message}"):
        bank.load("b")


def test_a_missing_key_is_an_error(tmp_path, tiny_preset):
    state = {f"_model.{name}": value for name, value in tiny_llama().state_dict().items() if name != "lm_head.weight"}
    torch.save(state, tmp_path / "x.pth")
    bank = ExpertBank({"a": save_bank(tmp_path, ["a"])["a"], "b": tmp_path / "x.pth"})
    with pytest.raises(ValueError, match="missing lm_head.weight"):
        bank.load("b")


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_saved_weights_that_do_not_fit_their_config(tmp_path, change):
    experts = save_bank(tmp_path, ["a", "b"])
    file = tmp_path / "b" / "model.safetensors"
    weights = load_file(file)
    if change == "missing":
        del weights["model.norm.weight"]
    else:
        weights["model.extra"] = torch.zeros(2)
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"Expert `b`: .*{change} model"):
        ExpertBank(experts).load("b")


def test_adapters_share_one_base(tmp_path):
    (base, other) = save_bank(tmp_path, ["base", "other"]).values()
    expected = {name: save_adapter(base, tmp_path / name, seed=seed) for seed, name in enumerate(("law", "maths"))}
    bank = ExpertBank({"code": other, "law": tmp_path / "law", "maths": tmp_path / "maths"})
    for name in ("law", "maths", "law"):
        torch.testing.assert_close(logits(bank.load(name)), expected[name], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected["law"], expected["maths"])
    assert bank.load("law") is bank.load("maths"), "the base is in memory once"
    assert "`law` is an adapter" in bank.architectures_differ()
    assert bank.members == ("code", "law", "maths")
    assert bank.fingerprint("law") != bank.fingerprint("maths")
    assert bank.settle(1 << 40).startswith("The experts take")


def test_an_adapter_of_the_head_brings_its_base_layer_along(tmp_path):
    base = save_bank(tmp_path, ["base", "other"])["base"]
    expected = save_adapter(base, tmp_path / "law", seed=0, targets=["lm_head", "q_proj"])
    bank = ExpertBank({"law": tmp_path / "law", "other": tmp_path / "other"})
    torch.testing.assert_close(logits(bank.load("law")), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("left_out", ["lora_A", "lora_B"])
def test_an_adapter_that_lacks_a_weight_is_refused(tmp_path, left_out):
    base = save_bank(tmp_path, ["base", "other"])["base"]
    save_adapter(base, tmp_path / "law", seed=0)
    file = tmp_path / "law" / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({name: value for name, value in weights.items() if f"q_proj.{left_out}" not in name}, file)
    bank = ExpertBank({"law": tmp_path / "law", "maths": tmp_path / "other"})
    for _ in range(2):  # and again when it is asked for again
        with pytest.raises(ValueError, match=f"1 of its weights are missing, such as .*q_proj.{left_out}.weight"):
            bank.load("law")


def test_an_adapters_base_can_be_given(tmp_path):
    base = save_bank(tmp_path, ["base", "other"])["base"]
    expected = save_adapter(base, tmp_path / "law", seed=0)
    moved = base.rename(tmp_path / "moved")
    experts = {"law": tmp_path / "law", "maths": tmp_path / "other"}
    with pytest.raises(FileNotFoundError, match="Expert `law`: the adapter's base.*experts.losses.adapter_base"):
        ExpertBank(experts)
    bank = ExpertBank(experts, adapter_base=str(moved))
    torch.testing.assert_close(logits(bank.load("law")), expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_of_another_base_is_refused(tmp_path):
    base = save_bank(tmp_path, ["base", "other"])["base"]
    save_adapter(base, tmp_path / "law", seed=0)
    tiny_llama(hidden=32).save_pretrained(base)
    bank = ExpertBank({"law": tmp_path / "law", "maths": tmp_path / "other"})
    for _ in range(2):  # and again when it is asked for again
        with pytest.raises(ValueError, match="Expert `law`: The adapter .* does not fit its base"):
            bank.load("law")


def test_an_adapter_whose_weights_have_no_place_is_refused(tmp_path):
    base = save_bank(tmp_path, ["base", "other"])["base"]
    save_adapter(base, tmp_path / "law", seed=0)
    about = json.loads((tmp_path / "law" / "adapter_config.json").read_text())
    (tmp_path / "law" / "adapter_config.json").write_text(json.dumps({**about, "target_modules": ["q_proj"]}))
    bank = ExpertBank({"law": tmp_path / "law", "maths": tmp_path / "other"})
    for _ in range(2):  # and again when it is asked for again
        with pytest.raises(ValueError, match="Expert `law`: .*down_proj.lora_A.weight has no place there"):
            bank.load("law")


def test_a_gguf_file_is_the_model_that_it_was(tmp_path):
    saved = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    path = tmp_path / "tiny.gguf"
    write_gguf(saved, path)
    bank = ExpertBank({"a": save_bank(tmp_path, ["a"])["a"], "b": path})
    torch.testing.assert_close(logits(bank.load("b")), logits(saved), rtol=1e-4, atol=1e-4)


def write_gguf(model, path):
    """Write a Llama as llama.cpp does: its names, and queries and keys in its order of rotation."""
    from gguf import GGUFWriter

    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "model.layers": "blk",
    }  # fmt: skip
    for name, value in model.state_dict().items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads
            rows, columns = value.shape
            value = value.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)  # noqa: PLW2901
        renamed = name
        for ours, theirs in sorted(names.items(), key=lambda pair: -len(pair[0])):
            renamed = renamed.replace(ours, theirs)
        writer.add_tensor(renamed, value.numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


GIB = 1 << 30


@pytest.mark.parametrize(
    "asked, free, expected",
    [("auto", 10, "all"), ("auto", 5, "one"), ("one", 10, "one"), ("all", 10, "all")],
)
def test_residence_follows_what_is_free(asked, free, expected):
    residence, sentence = choose_residence({"a": 2 * GIB, "b": 3 * GIB}, free * GIB, asked)
    assert residence == expected
    assert "5.00 GiB together, the largest 3.00 GiB" in sentence


@pytest.mark.parametrize(
    "asked, free, message",
    [
        ("auto", 3, "Expert `b` needs about 3.6 GiB, but 3.0 GiB are free"),
        ("all", 5, "All 2 experts together need about 6.0 GiB, but 5.0 GiB are free"),
    ],
)
def test_too_little_memory_is_said_before_anything_is_loaded(asked, free, message):
    with pytest.raises(ValueError, match=message):
        choose_residence({"a": 2 * GIB, "b": 3 * GIB}, free * GIB, asked)


def test_experts_stay_where_memory_allows_it(tmp_path):
    experts = save_bank(tmp_path)
    bank = ExpertBank(experts)
    assert bank.load("a") is not bank.load("a")
    bank.settle(1 << 40)
    assert bank.load("a") is bank.load("a")
    assert torch.equal(logits(bank.load(WEIGHT_AVERAGE)), logits(ExpertBank(experts).average()))
    assert torch.equal(logits(bank.load("a")), logits(tiny_llama(0))), "the mean was not taken in place"
