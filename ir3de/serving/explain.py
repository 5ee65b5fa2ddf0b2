"""Why a prompt went where it went: what each of its tokens gives to each expert, exactly (DESIGN.md 3.2)."""

from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from ir3de.serving.bounds import NoneBecause
from ir3de.serving.compiled import CompiledRouter, Route
from ir3de.serving.text import without_surrogates

Array = np.ndarray
COLOURS = ("#4e9ad6", "#e8833a", "#56b870", "#d65f8c", "#b39ddb", "#c9a227", "#5fc9c9", "#e06c5c", "#9ccc65", "#a1887f")
_NONE: dict[NoneBecause, str] = {
    "unsure": "below the threshold it is not known which of them",
    "unusual": "the prompt is unusual for all of them",
}
_MENTIONED = 8  # tokens that speak most for an expert
NO_PIECE = "(no character of its own)"  # what is shown for an empty piece
_SHOWN = 10  # experts with the highest scores, where there are more
_PICTURES = {
    **{i: chr(0x2400 + i) for i in range(0x20) if chr(i) not in "\n\t"},
    0x7F: "\u2421",
    **{i: f"\u241b{chr(i - 0x40)}" for i in range(0x80, 0xA0)},  # each is short for an escape and this letter
}


@dataclass(frozen=True)
class Explanation:
    """A route with its reasons.

    ``pieces`` is the text up to the end of each token, empty where several share a character. ``contribution_TE``
    float64, added up from the first token to the last and divided by ``divisor``, is ``route.scores``, exactly: votes
    (0 or 1), or token scores. ``gaps`` are the places before which a window left text out.
    """

    route: Route
    expert_names: tuple[str, ...]
    pieces: list[str]
    contribution_TE: Array
    divisor: int
    gaps: frozenset[int]

    def heading(self) -> str:
        """Return who answers, and why it is not the expert with the highest score."""
        because = self.route.none_because
        return (self.route.expert or "none of them") + ("" if because is None else f" ({_NONE[because]})")

    def facts(self) -> list[str]:
        """Return how sure the router is, how unusual the prompt, and what was read of it."""
        route = self.route
        found = [] if route.confidence is None else [f"confidence {route.confidence:.3f}"]
        if route.p_value is not None:
            share = f"{100 * route.p_value:.3g}% of the validation sequences are at least so unusual"
            found.append(f"p-value {route.p_value:.3g} ({share})")
        window = "" if route.window is None else f", {route.window.keep} {route.window.size:,} {route.window.unit} only"
        return [*found, f"{route.tokens:,} tokens read{window}"]

    @property
    def favourite_T(self) -> Array:
        """The expert that each token speaks for most, the lowest of equals; -1 where it speaks for none."""
        silent_T = (self.contribution_TE == self.contribution_TE[:, :1]).all(axis=1)
        return np.where(silent_T, -1, self.contribution_TE.argmax(axis=1))

    def weight_T(self) -> Array:
        """Return how far each token speaks for its favourite above the mean of all experts, from 0 to 1 of the most."""
        above_T = self.contribution_TE.max(axis=1) - self.contribution_TE.mean(axis=1)
        return above_T / max(float(above_T.max()), 1e-300)

    def best_experts(self) -> list[int]:
        """Return the experts with the highest scores, the highest first."""
        return np.argsort(-self.route.scores, kind="stable")[:_SHOWN].tolist()

    def telling(self, expert: int) -> list[tuple[str, float]]:
        """Return the pieces that speak most for an expert, and what they add to its score above the mean of all.

        The empty piece stands for all tokens that have no character of their own.
        """
        above_T = (self.contribution_TE[:, expert] - self.contribution_TE.mean(axis=1)) / self.divisor
        totals: dict[str, float] = {}
        for piece, value in zip(self.pieces, above_T.tolist(), strict=True):
            totals[piece] = totals.get(piece, 0.0) + value
        ordered = sorted(totals.items(), key=lambda two: -two[1])
        return [(piece, value) for piece, value in ordered[:_MENTIONED] if value > 0]


def explain(router: CompiledRouter, text: str) -> Explanation:
    """Return why a text goes where it goes.

    Raises:
        ValueError: if the text has no token.
    """
    window = router.window
    parts = [text]
    if window is not None and window.unit == "characters" and len(text) > window.size:
        parts = window.parts(text)
    ids: list[Array] = []
    pieces: list[str] = []
    starts: list[int] = []
    for part in map(without_surrogates, parts):  # as it is read: spans are of that
        ids_T, spans = router.reference.encode_with_offsets(part)
        starts.append(len(pieces))
        ids.append(ids_T)
        pieces += _pieces(part, spans)
    ids_T = np.concatenate(ids)
    gaps = starts[1:]
    if window is not None and window.unit == "tokens" and len(ids_T) > window.size:
        place_T = np.concatenate(window.parts(np.arange(len(ids_T))))
        gaps = [int(i) + 1 for i in np.flatnonzero(np.diff(place_T) > 1)]
        pieces = [pieces[i] for i in place_T.tolist()]
    route = router.route(text)
    contribution_TE, divisor = router.table.contributions(router.read(text).ids_T)
    return Explanation(route, router.expert_names, pieces, contribution_TE, divisor, frozenset(gaps))


def _pieces(text: str, spans: list[tuple[int, int]]) -> list[str]:
    """Return each token's text, from the end of the one before to its own; together they are ``text``."""
    pieces, end = [], 0
    for _, after in spans:
        pieces.append(text[end:after])
        end = max(end, after)
    return [*pieces[:-1], pieces[-1] + text[end:]] if pieces else []


def in_terminal(explanation: Explanation) -> list[Text | Table]:
    """Return an explanation for the terminal: the prompt coloured by expert, and the experts with their reasons.

    Control characters, with which a prompt or a name could rewrite the terminal, are shown as pictures.
    """
    route, names = explanation.route, explanation.expert_names
    head = Text(explanation.heading().translate(_PICTURES), style="bold")
    head.append("  " + "  ".join(explanation.facts()), style="not bold dim")
    body = Text()
    weight_T = explanation.weight_T().tolist()
    for i, (piece, favourite) in enumerate(zip(explanation.pieces, explanation.favourite_T.tolist(), strict=True)):
        body.append(" […] " if i in explanation.gaps else "")
        style = "dim" if favourite < 0 else COLOURS[favourite % len(COLOURS)] + (" bold" if weight_T[i] > 0.5 else "")
        body.append(piece.translate(_PICTURES), style=style)
    table = Table(box=None, pad_edge=False)
    for column in ("expert", "score", "what speaks for it most"):
        table.add_column(column, justify="right" if column == "score" else "left", overflow="fold")
    for expert in explanation.best_experts():
        reasons = "  ".join(
            f"{repr(piece) if piece else NO_PIECE} {value:+.3g}" for piece, value in explanation.telling(expert)
        )
        name = Text(names[expert].translate(_PICTURES), style=COLOURS[expert % len(COLOURS)])
        table.add_row(name, f"{route.scores[expert]:.4g}", Text(reasons))
    return [head, body, table]
