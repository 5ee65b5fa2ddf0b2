"""Local experts' weights: on a device that there is, shared by adapters over one base, and let go."""

import asyncio
import gc
import json
import threading
import weakref
from contextlib import suppress

import openai
import pytest
import torch
from transformers import LlamaForCausalLM

from ir3de.gateway.answers import Ask, AskRefused, ExpertFailed
from ir3de.gateway.local_bank import LocalBank
from ir3de.gateway.settings import LocalSettings, Place
from tests.gateway.local_experts import saved_bank
from tests.gateway.running import NAMES, settings
from tests.helpers.waiting import wait_until

CPU = LocalSettings(device="cpu", max_tokens=4)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return saved_bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def adapters(bank, tmp_path_factory):
    """Return a folder of three adapters over one base."""
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        base = LlamaForCausalLM.from_pretrained(bank / "law")
        config = peft.LoraConfig(
            r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, base_model_name_or_path=str(bank / "law")
        )
        peft.get_peft_model(base, config).save_pretrained(folder / name)
    return folder


def said(expert, **given):
    body = {"model": "any", "prompt": "w1 w2", "temperature": 0, **given}
    answer = asyncio.run(expert.answer(Ask("completions", body, "1")))
    return json.loads(answer.content)["choices"][0]["text"]


def threads_of_experts():
    return {thread for thread in threading.enumerate() if thread.name.startswith("expert")}


@pytest.mark.parametrize("asked", ["nonsense", "", "cuda", "cuda:0", "cuda:x", "meta", "cpu:7", "mps"])
def test_a_device_that_is_not_there_is_refused_with_what_is(monkeypatch, asked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"Expected `local.device` to be one of auto, cpu on .*0 CUDA.* got '{asked}'"):
        LocalBank(LocalSettings(device=asked))


def test_a_gpu_has_to_be_one_of_those_that_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for asked in ("auto", "cpu", "cuda", "cuda:0", "cuda:1"):
        assert LocalBank(LocalSettings(device=asked)).settings.device == asked
    for asked in ("cuda:2", "cuda:-1"):
        with pytest.raises(ValueError, match=f"one of auto, cpu, cuda, cuda:0, cuda:1 on .*2 CUDA.* got '{asked}'"):
            LocalBank(LocalSettings(device=asked))


def test_what_cannot_be_loaded_is_a_sentence_with_the_name(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="Expert `law`: Expecting property name"):
        LocalBank(CPU).load("law", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Expert `law`: "):
        LocalBank(CPU).load("law", str(tmp_path / "nowhere"))


def test_one_is_loaded_at_a_time(bank, monkeypatch):
    found, loading = LocalBank(CPU), {"now": 0, "most": 0}
    load, arrived = LocalBank._load, threading.Barrier(4)

    def counted(self, name, source):
        loading["now"] += 1
        loading["most"] = max(loading["most"], loading["now"])
        expert = load(self, name, source)
        loading["now"] -= 1
        return expert

    def together():
        arrived.wait(30)
        experts.append(found.load("law", str(bank / "law")))

    monkeypatch.setattr(LocalBank, "_load", counted)
    experts = []
    threads = [threading.Thread(target=together) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert loading == {"now": 0, "most": 1}
    assert len({said(expert) for expert in experts}) == 1


def test_two_banks_know_nothing_of_each_other(adapters, bank):
    base = str(bank / "law")
    first = LocalBank(LocalSettings(device="cpu", max_tokens=4, tokenizer=base))
    expert = first.load("law", str(adapters / "law"))
    alone = said(expert)
    second = LocalBank(LocalSettings(device="cpu", max_tokens=2, tokenizer=base, dtype="float64"))
    other = second.load("code", str(adapters / "code"))
    assert (first.settings.max_tokens, second.settings.max_tokens) == (4, 2)
    assert len(said(other).split()) <= 2
    assert said(expert) == alone


REQUESTS = [{}, {"prompt": "w1 " * 60}, {"n": 2}]


@pytest.mark.parametrize("given", REQUESTS, ids=["answered", "too long", "refused"])
def test_an_expert_that_nobody_has_any_more_leaves_neither_weights_nor_a_thread(bank, given):
    before = threads_of_experts()

    async def asked(expert):
        with suppress(AskRefused):  # in here, as a request's handler does
            await expert.answer(Ask("completions", {"prompt": "w1", **given}, "1"))

    experts = [LocalBank(CPU).load("law", str(bank / "law"))]
    model = weakref.ref(experts[0]._model._load())
    gc.collect()
    gc.disable()  # a collection of what refers to itself may be long in coming
    try:
        asyncio.run(asked(experts.pop()))
        wait_until(lambda: threads_of_experts() <= before)
        wait_until(lambda: model() is None)
        assert threads_of_experts() <= before, "and none begins anew"
    finally:
        gc.enable()


def test_weights_that_are_not_numbers_are_the_experts_failure(bank, caplog):
    expert = LocalBank(CPU).load("law", str(bank / "law"))
    with torch.no_grad():
        expert._model._load().lm_head.weight.fill_(torch.nan)
    for temperature in (0, 1):
        with pytest.raises(ExpertFailed, match="garbage"):
            said(expert, temperature=temperature)
    assert not caplog.records


def test_a_base_goes_with_the_last_adapter_over_it(adapters, bank):
    before = threads_of_experts()
    found = LocalBank(LocalSettings(device="cpu", max_tokens=4, tokenizer=str(bank / "law")))
    experts = {name: found.load(name, str(adapters / name)) for name in NAMES}
    assert len({id(expert._model._load()) for expert in experts.values()}) == 1
    model = weakref.ref(experts["law"]._model._load())
    texts = {name: said(expert) for name, expert in experts.items()}
    assert len(threads_of_experts() - before) == 1
    del experts["law"], experts["maths"]
    assert said(experts["code"]) == texts["code"]
    assert model() is not None
    del experts["code"]
    wait_until(lambda: threads_of_experts() <= before)
    gc.collect()
    assert model() is None
    again = found.load("law", str(adapters / "law"))
    assert said(again) == texts["law"]


def test_adapters_over_one_base_take_turns(running_loop, router, upstream, adapters, bank):
    local = LocalSettings(tokenizer=str(bank / "law"), device="cpu", waiting=20)
    gateway = running_loop.gateway(
        settings(router, upstream, others=Place(local=str(adapters)), local=local, limits={"answer_seconds": 20})
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
