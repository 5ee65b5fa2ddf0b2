"""Explanations as one HTML page that stands alone."""

from collections.abc import Iterable
from html import escape

from ir3de.serving.explain import COLOURS, Explanation

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
    spans = "".join(_span(explanation, i) for i in range(len(explanation.pieces)))
    rows = "".join(
        f'<tr><td style="color: {_colour(expert)}">{escape(names[expert])}</td>'
        f'<td class="number">{route.scores[expert]:.4g}</td><td>{_reasons(explanation, expert)}</td></tr>'
        for expert in explanation.best_experts()
    )
    return (
        f"<section><h2>{escape(explanation.heading())}</h2><p>{'; '.join(explanation.facts())}</p>\n"
        f"<pre>{spans}</pre>\n"
        f"<table><tr><th>expert</th><th>score</th><th>what speaks for it most</th></tr>{rows}</table></section>"
    )


def _span(explanation: Explanation, place: int) -> str:
    gap = " […] " if place in explanation.gaps else ""
    piece, given_E = explanation.pieces[place], explanation.contribution_TE[place]
    favourite = int(explanation.favourite_T[place])
    if favourite < 0:
        return f"{gap}{escape(piece)}"
    shown = ", ".join(f"{explanation.expert_names[e]} {given_E[e]:.6g}" for e in explanation.best_experts())
    share = round(15 + 55 * float(explanation.weight_T()[place]))
    return (
        f'{gap}<span title="{escape(shown)}" style="background: color-mix(in srgb, {_colour(favourite)} {share}%,'
        f' transparent)">{escape(piece)}</span>'
    )


def _reasons(explanation: Explanation, expert: int) -> str:
    return " ".join(
        f"<span><code>{escape(piece)}</code>&nbsp;{value:+.3g}</span>" for piece, value in explanation.telling(expert)
    )


def _colour(expert: int) -> str:
    return COLOURS[expert % len(COLOURS)]
