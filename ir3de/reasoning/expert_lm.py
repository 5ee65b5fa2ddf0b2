"""One expert of a bank as a model of lm-eval: loaded when an answer is not known, asked in shards that are kept."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import PreTrainedTokenizerBase

from ir3de.experts.bank import ExpertBank
from ir3de.reasoning.answers import Answer, AnswerCache, request_keys
from ir3de.reasoning.chatter import errors_only

GENERATE, LIKELIHOOD, ROLLING = "generate_until", "loglikelihood", "loglikelihood_rolling"


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How experts are asked; see ``Reasoning``. ``bare`` maps a task to the field that is its whole prompt."""

    batch_size: int
    shard_requests: int
    device: torch.device
    seed: int
    bare: Mapping[str, str]


class AnsweringLM(LM, ABC):
    """A model of lm-eval that answers whatever is asked in one way."""

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return the log likelihood of each continuation, and whether it is the likeliest."""
        return self._answers(LIKELIHOOD, requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return the log likelihood of each text."""
        return self._answers(ROLLING, requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return the continuation of each context."""
        return self._answers(GENERATE, requests)

    @abstractmethod
    def _answers(self, kind: str, requests: list[Instance]) -> list[Any]:
        """Return the answer to each request; ``kind`` is the method of lm-eval that asks."""


class ExpertLM(AnsweringLM):
    """One member of a bank, as lm-eval asks it.

    Args:
        bank: The experts.
        name: The member.
        tokenizer: Its tokenizer.
        asking: How it is asked.
        cache: Its answers.
        on_answers: Called with the answers that are there and those that were asked for, after each shard.
    """

    def __init__(
        self,
        bank: ExpertBank,
        name: str,
        *,
        tokenizer: PreTrainedTokenizerBase,
        asking: Asking,
        cache: AnswerCache,
        on_answers: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.cut = 0
        self._bank = bank
        self._tokenizer = tokenizer
        self._asking = asking
        self._cache = cache
        self._on_answers = on_answers
        self._model: HFLM | None = None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation in the expert's chat template.

        Raises:
            ValueError: if its tokenizer has none.
        """
        if not self._tokenizer.chat_template:
            raise ValueError(f"The tokenizer of the expert `{self.name}` has no chat template. Ask without one.")
        text = self._tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return str(text)

    @property
    def tokenizer_name(self) -> str:
        """What tells the tokenizer from others."""
        return str(self._tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the chat template that is in use."""
        return str(self._tokenizer.chat_template) if chat_template else None

    def release(self) -> None:
        """Let go of the model; the bank keeps it where all stay in memory."""
        self._model = None

    def _answers(self, kind: str, requests: list[Instance]) -> list[Any]:
        asked = [self._as_asked(kind, request) for request in requests]
        keys = request_keys(kind, [_settled(kind, one.args) for one in asked])
        step = self._asking.shard_requests
        for first in range(0, len(asked), step):
            shard = keys[first : first + step]
            if not all(key in self._cache for key in shard):  # whole shards: the same batches as without a stop
                self._cache.add(dict(zip(shard, self._ask(kind, asked[first : first + step], shard), strict=True)))
            if self._on_answers is not None:
                self._on_answers(min(first + step, len(asked)), len(asked))
        found = [self._cache[key] for key in keys]
        self.cut += sum(one.cut for one in found)
        return [one.value for one in found]

    def _as_asked(self, kind: str, request: Instance) -> Instance:
        field = self._asking.bare.get(str(request.task_name))
        if field is None or kind != GENERATE:
            return request
        return replace(request, arguments=(request.doc[field], request.args[1]), resps=[], filtered_resps={})

    def _ask(self, kind: str, requests: list[Instance], keys: list[str]) -> list[Answer]:
        model = self._loaded()
        cut = [_is_cut(model, kind, request, self.name) for request in requests]
        digest = hashlib.sha256(f"{self._asking.seed}{''.join(keys)}".encode()).digest()
        devices = [self._asking.device] if self._asking.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int.from_bytes(digest[:7], "big"))  # sampled answers hang on the shard alone
            answers = getattr(model, kind)(requests, disable_tqdm=True)
        return [Answer(value, one) for value, one in zip(answers, cut, strict=True)]

    def _loaded(self) -> HFLM:
        if self._model is None:
            model = self._bank.load(self.name).to(self._asking.device)  # type: ignore[arg-type]
            with errors_only():  # it warns of a model that is there already
                self._model = HFLM(pretrained=model, tokenizer=self._tokenizer, batch_size=self._asking.batch_size)
        return self._model


def _settled(kind: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a request's arguments with its generation settings in the one form that lm-eval brings them into."""
    return (arguments[0], dict(normalize_gen_kwargs(arguments[1]))) if kind == GENERATE else arguments


def _is_cut(model: HFLM, kind: str, request: Instance, name: str) -> bool:
    """Tell whether lm-eval will cut the beginning of a prompt off, since it does not fit into the expert's window."""
    if kind == ROLLING:  # read window by window
        return False
    if kind == LIKELIHOOD:
        return len(model.tok_encode("".join(request.args))) > model.max_length + 1
    longest = normalize_gen_kwargs(request.args[1], model.max_gen_toks)["max_gen_toks"]
    if longest >= model.max_length:
        raise ValueError(
            f"The task `{request.task_name}` asks for up to {longest} new tokens, but the expert `{name}` reads"
            f" {model.max_length} at most. Set `reasoning.max_new_tokens` (lm-eval: `--gen_kwargs max_gen_toks=…`)."
        )
    return len(model.tok_encode(request.args[0])) > model.max_length - longest
