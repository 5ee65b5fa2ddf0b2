"""A language model that is loaded here: it answers one request at a time, in a thread of its own."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ir3de.gateway.answers import ExpertFailed
from ir3de.gateway.errors import ApiError
from ir3de.gateway.generate import generate
from ir3de.gateway.local_request import LocalRequest
from ir3de.gateway.text_pieces import text_pieces

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """A piece of an answer, with the tokens that have been read and written so far, and why it is the last."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str | None = None


class Turns:
    """The thread in which a model is used, one request at a time; ``most`` may wait.

    Adapters over one base share it, since they change the same model. The thread ends when nobody has this any more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="expert")
        self._waiting = 0

    def first(self, work: Callable[[], object]) -> None:
        """Do something in that thread, and wait for it."""
        self._thread.submit(work).result()

    async def run(self, work: Callable[[], Iterator[Piece]]) -> AsyncGenerator[Piece, None]:
        """Yield what ``work`` yields, in its turn; when this is closed, ``work`` ends with its next piece.

        Raises:
            ExpertFailed: if too many wait.
        """
        if self._waiting > self._most:
            raise ExpertFailed("busy", f"{self._most} requests are waiting")
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()
        stopped = threading.Event()

        def put(what: Piece | Exception | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(pieces.put_nowait, what)

        def do() -> None:
            try:
                for piece in work() if not stopped.is_set() else ():
                    put(piece)
                    if stopped.is_set():
                        return
                put(None)
            except (ApiError, ExpertFailed) as error:
                put(error)
            except Exception as error:  # whatever it is, the request must not wait for ever
                _LOG.exception("a local expert failed")
                put(ExpertFailed("error", type(error).__name__))

        self._waiting += 1
        future = self._thread.submit(do)
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            piece = None  # an error holds this frame, which would hold it: the model would outlive its expert
            self._waiting -= 1
            stopped.set()
            future.cancel()


class LocalModel:
    """A causal language model with its tokenizer.

    Args:
        load: Returns the model, ready to be used until the next call; called in the thread of ``turns``.
        tokenizer: Its tokenizer.
        turns: Where it is used.
        context_length: Tokens that it can read and write together.
        max_tokens: New tokens of a request that does not say how many.
    """

    def __init__(
        self,
        load: Callable[[], PreTrainedModel],
        *,
        tokenizer: PreTrainedTokenizerBase,
        turns: Turns,
        context_length: int,
        max_tokens: int,
    ) -> None:
        self._load = load
        self._tokenizer = tokenizer
        self._turns = turns
        self._context_length = context_length
        self._max_tokens = max_tokens

    async def pieces(self, request: LocalRequest) -> AsyncGenerator[Piece, None]:
        """Yield the answer piece by piece.

        Raises:
            ApiError: if the prompt is empty or too long.
            ExpertFailed: if too many requests wait, or the model fails.
        """
        async with aclosing(self._turns.run(lambda: self._answer(request))) as pieces:
            async for piece in pieces:
                yield piece

    def _answer(self, request: LocalRequest) -> Iterator[Piece]:
        ids = self._encode(request)
        room = self._context_length - len(ids)
        if not ids:
            raise ApiError(400, "empty_prompt", "Expected a prompt with at least one token, but it is empty.")
        if room < 1:
            raise ApiError(
                400,
                "context_length_exceeded",
                f"The prompt has {len(ids)} tokens, but this expert reads {self._context_length} at most, and needs"
                " room for an answer.",
            )
        model = self._load()
        most = min(request.max_tokens or self._max_tokens, room)
        tokens = _Counted(
            generate(model, ids, sampling=request.sampling, max_tokens=most, end_ids=self._end_ids(model))
        )
        prompt = ids if request.prompt is not None else ()
        backend: Any = self._tokenizer
        for text, stopped in text_pieces(tokens, backend.backend_tokenizer, stops=request.stops, prompt=prompt):
            yield Piece(text, len(ids), tokens.count, "stop" if stopped else None)
            if stopped:
                return
        ended = tokens.last in self._end_ids(model)
        yield Piece("", len(ids), tokens.count, "stop" if ended else "length")

    def _encode(self, request: LocalRequest) -> list[int]:
        if request.messages is None:
            return list(self._tokenizer.encode(request.prompt))
        if not self._tokenizer.chat_template:  # a model that knows no chat goes on with the text
            return list(self._tokenizer.encode("\n\n".join(one["content"] for one in request.messages) + "\n\n"))
        try:
            text = self._tokenizer.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise what they like, of roles that do not alternate for example
            raise ApiError(
                400, "invalid_messages", f"The expert's chat template refuses the messages: {error}"
            ) from error
        return list(self._tokenizer.encode(str(text), add_special_tokens=False))

    def _end_ids(self, model: PreTrainedModel) -> frozenset[int]:
        found = {self._tokenizer.eos_token_id}
        named = model.generation_config.eos_token_id if model.generation_config is not None else None
        found |= set(named) if isinstance(named, list) else {named}
        return frozenset(one for one in found if one is not None)


class _Counted:
    """Tokens with how many there were, and the last."""

    def __init__(self, tokens: Iterator[int]) -> None:
        self._tokens = tokens
        self.count = 0
        self.last = -1

    def __iter__(self) -> Iterator[int]:
        for token in self._tokens:
            self.count += 1
            self.last = token
            yield token
