"""A router as it is used: read by memory map, decisions in microseconds, with NumPy and a tokenizer alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from ir3de.functional.calibration import Calibration
from ir3de.serving.alarm import Alarm
from ir3de.serving.artifact import CompiledFiles, read_compiled
from ir3de.serving.bounds import Bounds, NoneBecause
from ir3de.serving.readers import Readers, load_readers, same_readers
from ir3de.serving.source import pretrained_folder
from ir3de.serving.tables import EmbeddingMeanTable, EntropyTopKTable, MajorityTable, MeanTable, Table
from ir3de.serving.text import ReferenceReader, TextReader
from ir3de.serving.window import Window

Array = np.ndarray
Prompt = str | Sequence[int] | Array
_AT_ONCE = 256  # texts that the reference tokenizer reads together, on all processors


class Reading(NamedTuple):
    """The token ids that were read of a prompt, and the window through which, if it was longer than that."""

    ids_T: Array
    window: Window | None


class Route(NamedTuple):
    """Where a prompt goes, and why.

    ``expert_index`` is that with the highest of the ``scores`` ``(E,)`` float64, ``confidence`` the probability that it
    is the right one (``None`` for a router without validation sequences), and ``p_value`` the share of validation
    sequences that are at least so unusual (``None`` without an alarm, see ``Alarm.check``). ``expert`` is its name; or
    the fallback's or ``None``, none of them, where ``none_because`` says why not: ``"unsure"`` (below the threshold) or
    ``"unusual"`` (by the alarm). ``tokens`` were read, through ``window`` if the prompt was longer.
    """

    expert: str | None
    expert_index: int
    scores: Array
    confidence: float | None
    tokens: int
    window: Window | None
    p_value: float | None
    none_because: NoneBecause | None


class CompiledRouter:
    """Routes text and token ids as the router does that it was compiled from; a folder of files, memory-mapped.

    ``decide`` takes the token ids of one prompt and returns the expert's index: without a window it is the table's own
    method, without a detour. It, ``decide_text`` and ``decide_many`` know of no threshold and no alarm. A
    ``ValueError`` in every call are an empty prompt, an id that is read but not in the vocabulary, and ids where the
    window is in characters.
    ``not_fast`` says why text is read by the reference tokenizer, where it is not read by tiktoken, and ``deaf`` for
    which experts the alarm's level is too low to be reached.
    """

    def __init__(
        self,
        *,
        table: Table,
        reader: TextReader,
        reference: ReferenceReader,
        config: dict[str, Any],
        not_fast: str | None = None,
        window: Window | None = None,
        bounds: Bounds,
        alarm: Alarm | None = None,
    ) -> None:
        self.table = table
        self.reader = reader
        self.reference = reference
        self.not_fast = not_fast
        self.config = config
        self.expert_names: tuple[str, ...] = tuple(config["experts"])
        calibration = config["calibration"]
        self.calibration = Calibration(**calibration["calibration"]) if calibration else None
        self.window = window
        self.bounds = bounds
        self.alarm = alarm
        self.deaf = None if alarm is None or bounds.alarm is None else alarm.check_level(bounds.alarm)
        self._token_window = window if window is not None and window.unit == "tokens" else None
        self._characters = window.size if window is not None and window.unit == "characters" else None
        self.decide: Callable[[Array], int] = table.decide if window is None else self._decide_as_read

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        window: Window | None = None,
        threshold: float | None = None,
        alarm: float | None = None,
        fallback: str | None = None,
        like: "CompiledRouter | None" = None,
    ) -> Self:
        """Read what ``python main.py compile`` wrote.

        Below the confidence ``threshold``, and with a p-value of at most ``alarm``, a prompt goes to the ``fallback``
        or to none of the experts; an ``alarm`` of 0 tells the p-value alone. See ``Route``.

        Making what reads text is most of a load: that of ``like``, a router that is loaded already, is kept if both
        have the same tokenizer.

        Raises:
            FileNotFoundError: if there is no compiled router in ``folder``, or it has no alarm.
            ValueError: if a file is damaged, the fallback is no expert, a bound is out of its range or of reach, or a
                threshold is given to a router without validation sequences.
        """
        bounds = Bounds(threshold=threshold, alarm=alarm, fallback=fallback)
        files = read_compiled(Path(folder), alarm=alarm is not None)
        bounds.check(files.config)
        known = None if alarm is None else Alarm.of(files)
        if like is not None and same_readers(like.config, files.config):
            readers = Readers(like.reader, like.reference, like.not_fast)
        else:
            readers = load_readers(files)
        return cls(
            table=_table(files), **readers._asdict(), config=files.config, window=window, bounds=bounds, alarm=known
        )

    @classmethod
    def from_pretrained(cls, router: Path | str, *, revision: str | None = None, **options: Any) -> Self:
        """Read a compiled router, that of a saved one, or that of the hub's ``owner/name``; ``options`` as of ``load``.

        Of a repository the compiled form alone is fetched, all of one commit. A folder here goes before a repository.

        Raises:
            FileNotFoundError: if there is none, or the hub does not give one.
            ValueError: as ``load``; or if the saved router is not compiled.
        """
        return cls.load(pretrained_folder(router, revision=revision), **options)

    @property
    def identity(self) -> str:
        """The identity of the router that this one was compiled from: a SHA-256."""
        return str(self.config["source"]["identity"])

    def decide_text(self, text: str) -> int:
        """Return the index of the expert of one text; see ``decide``."""
        if self.window is not None:  # it cuts ids that have to be the tokenizer's, so that trying is not enough
            return self._decide_as_read(text)
        try:
            return self.decide(self.reader.try_encode(text))
        except ValueError:  # an empty text, or one that takes the reference tokenizer
            return self.decide(self.reader.encode(text))

    def decide_many(self, ids_M: Array, offsets: Array) -> Array:
        """Return the index of the expert of each prompt ``(N,)`` int64, without padding.

        ``ids_M`` has one prompt after the other, ``offsets`` ``(N + 1,)`` where each begins, and the last one ends.

        Raises:
            ValueError: if the ids are no row, the offsets do not ascend within it, or a prompt is refused (see above).
        """
        ids_M = np.asarray(ids_M)
        if ids_M.ndim != 1:
            raise ValueError(f"Expected one row of token ids, but got {ids_M.dtype} of shape {ids_M.shape}.")
        places = _as_offsets(offsets, len(ids_M))
        if self.window is None:
            return self.table.decide_many(ids_M, places)
        return np.array([self.decide(ids_M[a:b]) for a, b in pairwise(places.tolist())], dtype=np.int64)

    def route(self, prompt: Prompt) -> Route:
        """Return where a prompt, text or token ids, goes; see ``Route``."""
        return self.route_reading(self.read(prompt))

    def route_many(self, prompts: Iterable[Prompt]) -> list[Route]:
        """Return where each prompt goes, in their order.

        Raises:
            ValueError: if a prompt is empty or has an id out of range; its place is named.
        """
        return list(self.stream(prompts))

    def stream(self, prompts: Iterable[Prompt]) -> Iterator[Route]:
        """Yield where each prompt goes, in their order, in bounded memory; see ``route_many``.

        With tiktoken each prompt is answered before the next is taken; the reference tokenizer takes 256 ahead.
        """
        waiting = iter(prompts)
        at_once = _AT_ONCE if self.reader is self.reference else 1
        place = 0
        while some := list(islice(waiting, at_once)):
            for reading in self.read_many(some):
                try:
                    yield self.route_reading(reading)
                except ValueError as error:
                    raise ValueError(f"Prompt {place}: {error}") from error
                place += 1

    def read(self, prompt: Prompt) -> Reading:
        """Return the token ids that are read of a prompt."""
        if not isinstance(prompt, str):
            if self._characters is not None:
                raise ValueError(
                    f"Expected text for a window of {self._characters} characters, but got token ids. Give a window"
                    " in tokens."
                )
            return self._in_window(np.asarray(prompt))
        if self._characters is not None and self.window is not None and len(prompt) > self._characters:
            return Reading(
                np.concatenate([self.reader.encode(part) for part in self.window.parts(prompt)]), self.window
            )
        return self._in_window(self.reader.encode(prompt))

    def read_many(self, prompts: Sequence[Prompt]) -> list[Reading]:
        """Return the token ids that are read of each prompt."""
        if self._characters is None and all(isinstance(prompt, str) for prompt in prompts):
            return [self._in_window(ids_T) for ids_T in self.reader.encode_many([str(text) for text in prompts])]
        return [self.read(prompt) for prompt in prompts]

    def route_reading(self, reading: Reading) -> Route:
        """Return where a prompt goes of which this was read."""
        ids_T, window = reading
        scores_E = self.table.scores(ids_T)
        index = int(scores_E.argmax())
        confidence = None
        if self.calibration is not None:
            p_1E = self.calibration.probabilities(scores_E[None], np.array([self.table.deciding(len(ids_T))]))
            confidence = float(p_1E[0, index])
        p_value = None if self.alarm is None else self.alarm.check(ids_T).p_value
        because = self.bounds.broken_by(confidence, p_value)
        expert = self.expert_names[index] if because is None else self.bounds.fallback
        return Route(expert, index, scores_E, confidence, len(ids_T), window, p_value, because)

    def _in_window(self, ids_T: Array) -> Reading:
        if self._token_window is None or len(ids_T) <= self._token_window.size:
            return Reading(ids_T, None)
        return Reading(np.concatenate(self._token_window.parts(ids_T)), self._token_window)

    def _decide_as_read(self, prompt: Prompt) -> int:
        return self.table.decide(self.read(prompt).ids_T)


def _as_offsets(offsets: Array, num_ids: int) -> Array:
    """Return offsets as int64; ``ValueError`` if they do not ascend from 0 or more to at most ``num_ids``."""
    given = np.asarray(offsets)
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iu":
        raise ValueError(
            f"Expected offsets as a row of at least one integer, but got {given.dtype} of shape {given.shape}. Give"
            " where each prompt begins, and where the last one ends."
        )
    places = given.astype(np.int64, copy=False)  # what is beyond 63 bits is below zero then
    descents = np.count_nonzero(places[1:] < places[:-1])  # in half the time of ``any``
    if descents or places.item(0) < 0 or places.item(-1) > num_ids:
        raise ValueError(
            f"Expected offsets that ascend from 0 or more to at most {num_ids}, the number of ids, but got"
            f" {np.array2string(given, threshold=10)}."
        )
    return places


def _table(files: CompiledFiles) -> Table:
    config = files.config
    num_experts = len(config["experts"])
    table: Table
    match config["table"]:
        case "majority":
            winner_G = files.array("winner")
            _check_experts(files, winner_G[0] if winner_G.ndim == 1 and len(winner_G) else 0)
            table = MajorityTable(winner_G, num_experts=num_experts)
        case "entropy_top_k":
            winner_R = files.array("winner")
            _check_experts(files, winner_R[0] if winner_R.ndim == 1 and len(winner_R) else 0)
            table = EntropyTopKTable(files.array("rank"), winner_R, k=config["k"], num_experts=num_experts)
        case "mean":
            scores_GE = files.array("scores")
            _check_experts(files, scores_GE.shape[-1])
            table = MeanTable(scores_GE)
        case _:
            weight_DE = files.array("weight")
            _check_experts(files, weight_DE.shape[-1])
            table = EmbeddingMeanTable(files.array("embeddings"), weight_DE)
    return table


def _check_experts(files: CompiledFiles, found: int) -> None:
    """Refuse a table for another number of experts; those with votes have it in their first guard."""
    names = files.config["experts"]
    if found != len(names):
        raise ValueError(
            f"Expected the table in `{files.folder}` to be for its {len(names)} experts {names}, but it is for {found}."
            " Compile the router again."
        )
