"""Local experts: the same tokens as transformers, in OpenAI's shapes, one request at a time."""

import threading
import time

import openai
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ir3de.gateway import generate as generation
from ir3de.gateway.generate import Sampling, generate, next_token
from ir3de.gateway.settings import LocalSettings, Place
from ir3de.gateway.text_pieces import text_pieces
from ir3de.pretrained.tokenizer import TextTokenizer
from tests.gateway.running import NAMES, settings
from tests.gateway.test_interface import chat, streamed
from tests.helpers.waiting import wait_until
from tests.serving.routers import byte_pair_tokenizer

WORDS = 40
TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}{% if add_generation_prompt %}w5{% endif %}"


def tokenizer_of_words():
    vocabulary = {f"w{i}": i for i in range(WORDS - 3)} | {"user": WORDS - 3, "<unk>": WORDS - 2, "</s>": WORDS - 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def tiny_llama(seed=0, *, words=WORDS, positions=48):
    torch.manual_seed(seed)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=words, max_position_embeddings=positions, eos_token_id=WORDS - 1, **size)
    )
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(8)  # or all logits are nearly equal
    return model.eval()


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """Return a folder of three experts, of which the last has a chat template."""
    folder = tmp_path_factory.mktemp("bank")
    for seed, name in enumerate(NAMES):
        tiny_llama(seed).save_pretrained(folder / name)
        if name == "maths":
            fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer_of_words(), eos_token="</s>", unk_token="<unk>")
            fast.chat_template = TEMPLATE
            fast.save_pretrained(folder / name)
        else:
            TextTokenizer(tokenizer_of_words(), end_of_text=WORDS - 1).save(folder / name)
    return folder


@pytest.fixture
def gateway(running_loop, router, upstream, bank):
    local = LocalSettings(max_tokens=6, waiting=2, device="cpu")
    return running_loop.gateway(
        settings(router, upstream, others=Place(local=str(bank)), local=local, limits={"answer_seconds": 10})
    )


def expected(bank, name, prompt, most):
    """Return what transformers' own loop writes, and the tokens it took."""
    model = LlamaForCausalLM.from_pretrained(bank / name)
    tokenizer = tokenizer_of_words()
    ids = tokenizer.encode(prompt).ids
    with torch.inference_mode():
        new = model.generate(torch.tensor([ids]), max_new_tokens=most, do_sample=False, pad_token_id=0)[0, len(ids) :]
    return tokenizer.decode([i for i in new.tolist() if i != WORDS - 1]), len(ids), len(new)


def test_a_completion_is_what_transformers_writes(client, bank):
    for name in ("code", "law"):
        text, read, written = expected(bank, name, "w1 w2 w3", 9)
        answer = client.completions.create(model=name, prompt="w1 w2 w3", max_tokens=9, temperature=0)
        assert answer.choices[0].text.strip() == text
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (read, written)
        assert answer.choices[0].finish_reason == ("length" if written == 9 else "stop")
        parts = list(client.completions.create(model=name, prompt="w1 w2 w3", max_tokens=9, temperature=0, stream=True))
        assert "".join(part.choices[0].text for part in parts) == answer.choices[0].text
        assert len(parts) > 3
        assert (parts[-1].choices[0].finish_reason, parts[-1].model) == (answer.choices[0].finish_reason, name)


@pytest.mark.parametrize("name, prompt", [("maths", "user w1 w2 w5"), ("code", "w1 w2")])
def test_a_chat_goes_through_the_template_where_there_is_one(client, bank, name, prompt):
    text, read, written = expected(bank, name, prompt, 6)
    answer = chat(client, "w1 w2", model=name, temperature=0)
    assert answer.choices[0].message.content.strip() == text
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (read, written)
    options = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    *parts, last = chat(client, "w1 w2", model=name, **options)
    assert streamed(parts) == answer.choices[0].message.content
    assert parts[0].choices[0].delta.role == "assistant"
    assert (last.choices, last.usage) == ([], answer.usage)


def test_auto_reaches_local_experts(client, word):
    answer = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": word["law"]}], max_tokens=2
    )
    assert answer.headers["x-ir3de-expert"] == "law"
    assert answer.parse().model == "law"


def test_equal_seeds_give_equal_answers_and_others_differ(client):
    found = {
        seed: {
            client.completions.create(model="law", prompt="w1", max_tokens=20, seed=seed).choices[0].text for _ in "ab"
        }
        for seed in range(4)
    }
    assert all(len(texts) == 1 for texts in found.values())
    assert len(set.union(*found.values())) > 1


def test_it_stops_at_a_stop_string_and_says_so(client, bank):
    text = expected(bank, "law", "w1 w2 w3", 9)[0]
    stop = f" {text.split()[3]}"
    answer = client.completions.create(model="law", prompt="w1 w2 w3", max_tokens=9, temperature=0, stop=[stop, "zzz"])
    assert answer.choices[0].text.strip() == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n": 2}, "`n`"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "`tools`"),
        ({"logprobs": True}, "`logprobs`"),
        ({"temperature": 3}, "`temperature`"),
        ({"top_p": -1}, "`top_p`"),
        ({"max_tokens": 0}, "`max_tokens`"),
        ({"seed": "x"}, "`seed`"),
        ({"stop": [""]}, "`stop`"),
        ({"extra_body": {"top_k": 3}}, "`top_k`"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "text alone"),
        ({"messages": [{"role": "user", "content": "w1 " * 60}]}, "has 60 tokens, but this expert reads 48"),
        ({"messages": [{"role": "user", "content": ""}]}, "at least one token"),
    ],
)
def test_what_a_local_expert_does_not_understand_is_refused(client, options, message):
    given = {"messages": [{"role": "user", "content": "w1"}], **options}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=message):
            client.chat.completions.create(model="code", stream=stream, **given)


def test_what_has_no_effect_may_be_said(client):
    assert chat(client, "w1", model="code", n=1, user="me", frequency_penalty=0, response_format={"type": "text"})


def test_the_context_ends_an_answer(client):
    answer = client.completions.create(model="code", prompt="w1 " * 45, max_tokens=30, temperature=0)
    assert answer.usage.total_tokens <= 48
    assert answer.usage.completion_tokens == 3 or answer.choices[0].finish_reason == "stop"


@pytest.fixture
def slow(monkeypatch):
    """Let every token take 50 ms, and wait for ``go_on``; count how many models are at work."""
    at_work = {"now": 0, "most": 0, "tokens": 0, "go_on": threading.Event()}
    at_work["go_on"].set()

    def next_slowly(logits_V, sampling, generator):
        at_work["now"] += 1
        at_work["most"] = max(at_work["most"], at_work["now"])
        time.sleep(0.05)
        assert at_work["go_on"].wait(60)
        at_work["now"] -= 1
        at_work["tokens"] += 1
        return 1

    monkeypatch.setattr(generation, "next_token", next_slowly)
    return at_work


def test_a_model_answers_one_request_at_a_time_and_a_full_queue_is_said(client, slow):
    outcomes = []

    def ask():
        try:
            outcomes.append(chat(client, "w1", model="law").choices[0].message.content)
        except openai.InternalServerError as error:
            outcomes.append((error.status_code, error.response.headers["retry-after"]))

    slow["go_on"].clear()
    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(outcomes) == 2)
    slow["go_on"].set()
    for thread in threads:
        thread.join(10)
    assert slow["most"] == 1
    assert sorted(outcomes, key=str) == [(503, "1")] * 2 + ["w1 w1 w1 w1 w1 w1"] * 3


def test_a_client_that_goes_away_ends_the_generation(client, gateway, slow):
    stream = chat(client, "w1", model="law", stream=True, max_tokens=40)
    next(iter(stream))
    stream.close()
    wait_until(lambda: not gateway.running)
    time.sleep(0.1)
    written = slow["tokens"]
    time.sleep(0.2)
    assert slow["tokens"] == written < 40
    assert chat(client, "w1", model="law", max_tokens=2), "the next one has its turn"


def test_top_p_keeps_the_likeliest_tokens_and_draws_by_probability():
    logits_V = torch.tensor([0.1, 0.5, 0.25, 0.15]).log()
    generator = torch.Generator().manual_seed(0)

    def drawn(**options):
        ids = [next_token(logits_V, Sampling(**options), generator) for _ in range(4000)]
        return torch.bincount(torch.tensor(ids), minlength=4) / 4000

    assert torch.allclose(drawn(), logits_V.exp(), atol=0.03)
    assert torch.allclose(drawn(top_p=0.7), torch.tensor([0, 2 / 3, 1 / 3, 0]), atol=0.03)
    assert drawn(top_p=0.0).tolist() == drawn(temperature=0).tolist() == [0, 1, 0, 0]
    assert torch.allclose(drawn(temperature=0.5), torch.softmax(logits_V * 2, 0), atol=0.03)


def test_generation_ends_at_the_end_of_text():
    model = tiny_llama()
    ids = list(generate(model, [1, 2], sampling=Sampling(temperature=0), max_tokens=20, end_ids=frozenset()))
    cut = list(generate(model, [1, 2], sampling=Sampling(temperature=0), max_tokens=20, end_ids=frozenset({ids[4]})))
    assert cut == ids[: ids.index(ids[4]) + 1]


TEXT = "déjà vu: 🙂👍🏽 速い <|end|>  stop here, or stop there.\n"


@pytest.mark.parametrize(
    "stops", [[], ["stop there"], [" here", "zz"], ["🙂"], ["déjà vu: 🙂👍🏽 速い   stop here, or xx"]]
)
def test_pieces_are_whole_characters_and_end_before_a_stop(stops):
    tokenizer = byte_pair_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    ids = tokenizer.encode(TEXT).ids
    whole = tokenizer.decode(ids)
    ends = [whole.index(stop) for stop in stops if stop in whole]
    pieces = list(text_pieces(ids, tokenizer, stops=stops))
    assert "".join(text for text, _ in pieces) == whole[: min(ends, default=len(whole))]
    assert [stopped for _, stopped in pieces].count(True) == bool(ends)
    assert "�" not in "".join(text for text, _ in pieces)


def test_a_piece_goes_on_with_the_prompt():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "▁a": 2, "▁b": 3}, unk_token="a"))
    tokenizer.decoder = decoders.Metaspace()
    assert [text for text, _ in text_pieces([3, 1], tokenizer, stops=[], prompt=[2])] == [" b", "b"]
    assert [text for text, _ in text_pieces([3, 1], tokenizer, stops=[])] == ["b", "b"]


def test_adapters_over_one_base_take_turns(running_loop, router, upstream, tmp_path, bank):
    peft = pytest.importorskip("peft")
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        base = LlamaForCausalLM.from_pretrained(bank / "law")
        config = peft.LoraConfig(
            r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, base_model_name_or_path=str(bank / "law")
        )
        peft.get_peft_model(base, config).save_pretrained(tmp_path / name)
    local = LocalSettings(tokenizer=str(bank / "law"), device="cpu", waiting=20)
    gateway = running_loop.gateway(
        settings(router, upstream, others=Place(local=str(tmp_path)), local=local, limits={"answer_seconds": 20})
    )
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0) as client:

        def text(name):
            return client.completions.create(model=name, prompt="w1 w2", max_tokens=8, temperature=0).choices[0].text

        alone = {name: text(name) for name in NAMES}
        assert len(set(alone.values())) == 3
        mixed = []
        threads = [threading.Thread(target=lambda name=name: mixed.append((name, text(name)))) for name in NAMES * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert sorted(mixed) == sorted((name, alone[name]) for name in NAMES * 4)
