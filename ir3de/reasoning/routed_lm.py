"""A router and its bank as one model of lm-eval: every question goes to one expert, whatever is asked about it."""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model

from ir3de.configs import RUNS, SUFFIXES, UNNAMED, experts_folder, load_config
from ir3de.experts.bank import DTypeName, ExpertBank
from ir3de.experts.expert_tokenizer import load_expert_tokenizer
from ir3de.experts.memory import Residence, free_bytes
from ir3de.reasoning.answers import AnswerCache, answers_folder
from ir3de.reasoning.expert_lm import AnsweringLM, Asking, ExpertLM
from ir3de.reasoning.make_scores import device_of
from ir3de.routers import Router, load_router

PROMPT_FIELDS = ("question", "instruction", "prompt")  # of GSM8K, m_arc, HumanEval and IFEval
_CONVERSATION = "\x00ir3de conversation\x00"  # a context that the expert's own chat template turns into text
_ROUTED_AT_ONCE = 64
_log = logging.getLogger("lm_eval.ir3de")


@register_model("ir3de")
class RoutedLM(AnsweringLM):
    """A routed bank of experts as a model of lm-eval.

    The router decides once per question, by the question's own text and not by its few-shot context; all answer options
    of a question are read by the same expert. ``routed`` counts the questions of each task by expert.

    Args:
        router: A saved router, or its folder.
        bank: Where the experts are: a folder with one for each name, a mapping, or the name of a config whose bank,
            precision and tokenizer are taken.
        dtype: The experts' precision; the config's, or float32.
        tokenizer: Of experts that come without one; the config's, if it names one.
        prompt_field: The field of a question that the router reads; by default the first of `question`, `instruction`
            and `prompt` that a question has.
        batch_size: Answers of a forward pass.
        device: Where experts answer; by default the first GPU, or the CPU where there is none.
        residence: Whether experts stay in memory once loaded: `all`, `one` at a time, or `auto` by what is free.
        adapter_base: The base of all adapters of the bank.
        cache: The folder in which answers are kept (`data.cache_dir` of `scores`, whose answers are used again).
        shard_requests: After how many answers they are written.
        seed: Draws sampled answers.
        max_batch_size: Accepted from lm-eval's command line, which passes it on; of no use here.

    Raises:
        FileNotFoundError: if the router or an expert is missing.
        ValueError: if the bank has no expert for a name that the router knows.
    """

    def __init__(
        self,
        router: str | Path | Router,
        bank: str | Mapping[str, str],
        *,
        dtype: Any = None,
        tokenizer: str | None = None,
        prompt_field: str | None = None,
        batch_size: int | str = 8,
        device: str | None = None,
        residence: Residence = "auto",
        adapter_base: str | None = None,
        cache: str | None = None,
        shard_requests: int = 256,
        seed: int = 1234,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal():
            raise ValueError(f"Expected `batch_size` to be a number, but got `{batch_size}`.")
        self.router = router if isinstance(router, Router) else load_router(router)
        given = {"dtype": dtype, "tokenizer": tokenizer, "adapter_base": adapter_base}
        self._bank, fallback = _open_bank(self.router.expert_names, bank, given, residence)
        self._prompt_fields = PROMPT_FIELDS if prompt_field is None else (prompt_field,)
        self._device = device_of(device or "auto")
        self.routed: dict[str, dict[str, int]] = defaultdict(dict)
        self._expert_of: dict[str, str] = {}  # a text's expert
        asking = Asking(
            batch_size=int(batch_size), shard_requests=shard_requests, device=self._device, seed=seed, bare={}
        )
        _log.info(self._bank.settle(free_bytes(self._device)))
        self._experts: dict[str, ExpertLM] = {}
        for name in self._bank.names:
            own = load_expert_tokenizer(self._bank.sources[name], fallback=fallback)
            folder = None if cache is None else answers_folder(
                Path(cache), fingerprint=self._bank.fingerprint(name), dtype=self._bank.dtype, tokenizer=own, seed=seed
            )  # fmt: skip
            self._experts[name] = ExpertLM(self._bank, name, tokenizer=own, asking=asking, cache=AnswerCache(folder))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as a context that the chosen expert's template will turn into text."""
        return _CONVERSATION + json.dumps([chat_history, add_generation_prompt])

    @property
    def tokenizer_name(self) -> str:
        """What tells the tokenizers from others."""
        return "+".join(one.tokenizer_name for one in self._experts.values())

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the experts' chat templates, by name."""
        if not chat_template:
            return None
        return json.dumps({name: one.chat_template(chat_template) for name, one in self._experts.items()})

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm-eval writes into its results: the router's identity, the experts, and who answered what."""
        return {
            "router": self.router.identity_hash(),
            "experts": dict(self._bank.sources),
            "routed": {task: dict(counts) for task, counts in self.routed.items()},
        }

    def _answers(self, kind: str, requests: list[Instance]) -> list[Any]:
        chosen = self._decide(requests)
        answers: dict[int, Any] = {}
        for name, expert in self._experts.items():
            mine = [place for place, one in enumerate(chosen) if one == name]
            if not mine:
                continue
            asked = [_rendered(requests[place], expert) for place in mine]
            answers |= dict(zip(mine, getattr(expert, kind)(asked), strict=True))
            expert.release()
            if expert.cut:
                _log.warning("%d prompts did not fit into the window of %s and lost their beginning", expert.cut, name)
                expert.cut = 0
        return [answers[place] for place in range(len(requests))]

    def _decide(self, requests: Sequence[Instance]) -> list[str]:
        texts = [self._text(request) for request in requests]
        new = [text for text in dict.fromkeys(texts) if text not in self._expert_of]
        for first in range(0, len(new), _ROUTED_AT_ONCE):
            batch = new[first : first + _ROUTED_AT_ONCE]
            self._expert_of |= dict(zip(batch, self.router.route(batch).names, strict=True))
        chosen = [self._expert_of[text] for text in texts]
        every = {(one.task_name, one.doc_id): name for one, name in zip(requests, chosen, strict=True)}
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for (task, _), name in every.items():
            counts[str(task)][name] += 1
        for task, of_task in counts.items():
            self.routed[task] = dict(of_task)
            _log.info("%s: %s", task, ", ".join(f"{count} to {name}" for name, count in of_task.most_common()))
        return chosen

    def _text(self, request: Instance) -> str:
        for field in self._prompt_fields:
            text = request.doc.get(field)
            if isinstance(text, str) and text.strip():
                return text
        raise ValueError(
            f"Expected text in one of the fields {list(self._prompt_fields)} of the questions of `{request.task_name}`,"
            f" but they have {sorted(request.doc)}. Give the model argument `prompt_field`."
        )


def _rendered(request: Instance, expert: ExpertLM) -> Instance:
    """Return a request with its conversation in the expert's own chat template, if it is one."""
    context = request.args[0]
    if not (isinstance(context, str) and context.startswith(_CONVERSATION)):
        return request
    history, add_generation_prompt = json.loads(context.removeprefix(_CONVERSATION))
    text = expert.apply_chat_template(history, add_generation_prompt)
    return Instance(
        request_type=request.request_type, doc=request.doc, arguments=(text, *request.args[1:]), idx=request.idx,
        metadata=(request.task_name, request.doc_id, request.repeats),
    )  # fmt: skip


def _open_bank(
    names: Sequence[str], bank: str | Mapping[str, str], given: Mapping[str, Any], residence: Residence
) -> tuple[ExpertBank, str | None]:
    """Return the experts that the router knows, and the tokenizer of those that come without one."""
    settings = dict(given)
    if isinstance(bank, str) and bank.endswith(SUFFIXES):
        config = load_config(bank)
        experts = config.get("experts") or {}
        losses = experts.get("losses") or {}
        there = {"dtype": losses.get("dtype"), "adapter_base": losses.get("adapter_base")}
        there["tokenizer"] = (config.get("data") or {}).get("tokenizer")
        settings = {key: there[key] if value is None else value for key, value in given.items()}
        named = experts.get("bank")
        run = {"runs": config.get("runs") or RUNS, "name": str(config.get("name") or UNNAMED)}
        bank = named if isinstance(named, Mapping) else str(experts_folder(named, **run))
    sources = bank if isinstance(bank, Mapping) else {name: str(Path(bank) / name) for name in names}
    missing = [name for name in names if name not in sources]
    if missing:
        raise ValueError(f"The router chooses between {list(names)}, but the bank has no {missing}. Add them.")
    dtype = str(settings["dtype"] or "float32").removeprefix("torch.")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"Expected `dtype` to be float32, bfloat16 or float16, but got `{dtype}`.")
    opened = ExpertBank(
        {name: sources[name] for name in names},
        dtype=cast(DTypeName, dtype),
        residence=residence,
        adapter_base=settings["adapter_base"],
    )
    return opened, settings["tokenizer"]
