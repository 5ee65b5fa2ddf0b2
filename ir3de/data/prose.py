"""The prose of a docstring, without the code in it: so that text about code is not itself code."""

import re

_CODE_DIRECTIVE = re.compile(
    r"\.\. (code-block|code|sourcecode|plot|ipython|testcode|testsetup|testoutput|highlight|autosummary|doctest)::"
)
_EMPTY_SECTION = re.compile(
    r"\n*^(Examples?|References?)\n[=\-~^]+\n*(?=\Z|^[A-Z][A-Za-z ]+\n[=\-~^]{3,}$)", re.MULTILINE
)
_BLANK_LINES = re.compile(r"\n{3,}")


def docstring_prose(docstring: str) -> str:
    """Return a docstring (dedented) without doctests, fenced code, literal blocks, and the headings these leave empty.

    Formulas (``.. math::``) and lists of parameters stay.
    """
    kept: list[str] = []
    fenced = in_doctest = False
    literal_indent: int | None = None
    for line in docstring.expandtabs().split("\n"):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if stripped.startswith(("```", "~~~")):
            fenced = not fenced
            continue
        if fenced:
            continue
        if literal_indent is not None:
            if not stripped or indent > literal_indent:
                continue
            literal_indent = None
        if stripped.startswith(">>>"):
            in_doctest = True
        elif in_doctest and not stripped:
            in_doctest = False  # what a doctest prints ends with a blank line
        if in_doctest:
            continue
        if _CODE_DIRECTIVE.match(stripped):
            literal_indent = indent
            continue
        if stripped.endswith("::") and not stripped.startswith(".."):
            literal_indent = indent
            line = line.rstrip()[:-1]  # noqa: PLW2901
        kept.append(line.rstrip())
    text = _BLANK_LINES.sub("\n\n", "\n".join(kept))
    return _EMPTY_SECTION.sub("", text).strip()
