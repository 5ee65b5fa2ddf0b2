"""A local model as an expert: OpenAI's shapes around what it writes."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ir3de.gateway.answers import Ask, AskRefused, Expert, Stream, Whole
from ir3de.gateway.errors import ApiError
from ir3de.gateway.local_model import LocalModel, Piece
from ir3de.gateway.local_request import LocalRequest, local_request


class LocalExpert(Expert):
    """A model that is loaded here, under the ``name`` that its answers carry."""

    def __init__(self, name: str, model: LocalModel) -> None:
        self._name = name
        self._model = model

    async def answer(self, ask: Ask) -> Whole | Stream:
        try:
            request = local_request(ask)
            shape = _Shape(ask, self._name)
            if not request.stream:
                return await self._whole(request, shape)
            events = self._events(request, shape)
            first = await anext(events)
            return Stream(first, events)
        except ApiError as error:
            raise AskRefused(error.status, error.content()) from None

    async def _whole(self, request: LocalRequest, shape: "_Shape") -> Whole:
        text, last = [], Piece("", 0, 0)
        async with aclosing(self._model.pieces(request)) as pieces:
            async for piece in pieces:
                text.append(piece.text)
                last = piece
        return Whole(json.dumps(shape.whole("".join(text), last)).encode())

    async def _events(self, request: LocalRequest, shape: "_Shape") -> AsyncGenerator[bytes, None]:
        last = Piece("", 0, 0)
        async with aclosing(self._model.pieces(request)) as pieces:
            begun = False
            async for piece in pieces:
                if not begun and shape.chat:  # sent with the first piece, when it is sure that there is an answer
                    yield _event(shape.part(None, None, role=True))
                begun = True
                if piece.text:
                    yield _event(shape.part(piece.text, None))
                last = piece
        yield _event(shape.part(None, last.finish))
        if request.include_usage:
            yield _event(shape.usage(last))
        yield b"data: [DONE]\n\n"


class _Shape:
    """The objects of one answer."""

    def __init__(self, ask: Ask, name: str) -> None:
        self.chat = ask.endpoint == "chat/completions"
        self._object = "chat.completion" if self.chat else "text_completion"
        self._head = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{ask.request_id}", "created": int(time.time()), "model": name,
        }  # fmt: skip

    def whole(self, text: str, last: Piece) -> dict[str, Any]:
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": last.finish}
        return {**self._head, "object": self._object, "choices": [choice], "usage": _usage(last)}

    def part(self, text: str | None, finish: str | None, *, role: bool = False) -> dict[str, Any]:
        said: dict[str, Any] = {"text": text or ""}
        if self.chat:
            delta = {"role": "assistant", "content": ""} if role else {} if text is None else {"content": text}
            said = {"delta": delta}
        return self._chunk([{"index": 0, **said, "logprobs": None, "finish_reason": finish}])

    def usage(self, last: Piece) -> dict[str, Any]:
        return {**self._chunk([]), "usage": _usage(last)}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = f"{self._object}.chunk" if self.chat else self._object
        return {**self._head, "object": kind, "choices": choices}


def _usage(last: Piece) -> dict[str, int]:
    return {
        "prompt_tokens": last.prompt_tokens,
        "completion_tokens": last.completion_tokens,
        "total_tokens": last.prompt_tokens + last.completion_tokens,
    }


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
