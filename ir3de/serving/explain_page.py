"""Explanations as one HTML page that stands alone."""

from collections.abc import Iterable, Sequence
from html import escape

from ir3de.serving.explain import COLOURS, NO_PIECE, Explanation

_STYLE = """
body { font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { white-space: break-spaces; overflow-wrap: anywhere; border: 1px solid #8884; border-radius: 6px; padding: 1rem; }
pre span { border-radius: 3px; }
h2, td { overflow-wrap: anywhere; }
td, th { text-align: left; padding: .1rem 1rem .1rem 0; vertical-align: top; }
td:first-child { max-width: min(12rem, 30vw); overflow-wrap: break-word; }
td:last-child, th:last-child { padding-right: 0; }
td span { display: inline-block; max-width: 100%; }  /* one reason stays together, but widens nothing */
td.number { text-align: right; overflow-wrap: normal; font-variant-numeric: tabular-nums; }
code { background: #8882; border-radius: 3px; padding: 0 .2rem; white-space: break-spaces; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e6e6e6; } }
"""


def page(explanations: Iterable[Explanation]) -> str:
    """Return a page with some explanations: each prompt coloured by expert, scores, and the exact numbers on hover."""
    sections = "\n".join(_section(one) for one in explanations)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Why prompts went where they went</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>Why prompts went where they went</h1>\n{sections}\n"
        "</body></html>\n"
    )


def _section(explanation: Explanation) -> str:
    route, names = explanation.route, explanation.expert_names
    best = explanation.best_experts()
    rows = "".join(
        f'<tr><td style="color: {_colour(expert)}">{escape(names[expert])}</td>'
        f'<td class="number">{route.scores[expert]:.4g}</td><td>{_reasons(explanation, expert)}</td></tr>'
        for expert in best
    )
    return (
        f"<section><h2>{escape(explanation.heading())}</h2><p>{'; '.join(explanation.facts())}</p>\n"
        f"<pre>{_spans(explanation, best)}</pre>\n"
        f"<table><tr><th>expert</th><th>score</th><th>what speaks for it most</th></tr>{rows}</table></section>"
    )


def _spans(explanation: Explanation, best: Sequence[int]) -> str:
    spans = []
    favourite_T, weight_T = explanation.favourite_T.tolist(), explanation.weight_T().tolist()
    for place, (piece, favourite, weight) in enumerate(zip(explanation.pieces, favourite_T, weight_T, strict=True)):
        spans.append(" […] " if place in explanation.gaps else "")
        if favourite < 0:
            spans.append(escape(piece))
            continue
        given_E = explanation.contribution_TE[place]
        shown = ", ".join(f"{explanation.expert_names[e]} {given_E[e]:.6g}" for e in best)
        spans.append(
            f'<span title="{escape(shown)}" style="background: color-mix(in srgb, {_colour(favourite)}'
            f' {round(15 + 55 * weight)}%, transparent)">{escape(piece)}</span>'
        )
    return "".join(spans)


def _reasons(explanation: Explanation, expert: int) -> str:
    return " ".join(
        f"<span>{f'<code>{escape(piece)}</code>' if piece else NO_PIECE}&nbsp;{value:+.3g}</span>"
        for piece, value in explanation.telling(expert)
    )


def _colour(expert: int) -> str:
    return COLOURS[expert % len(COLOURS)]
