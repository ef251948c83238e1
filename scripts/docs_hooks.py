"""Hooks of MkDocs: formulas become MathML when the site is built, so that pages load no script for them."""

from __future__ import annotations

import html
import logging
import re
from typing import Any

from latex2mathml.converter import convert

logger = logging.getLogger("mkdocs.hooks.formulas")  # with --strict a warning here is an error

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">'
    r"(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])"
    r"</(?P=tag)>",
    re.DOTALL,
)

_MARKS = {"0005E": "&#x0302;", "0007E": "&#x0303;", "000AF": "&#x0304;"}
"""Hat, tilde and bar to the combining marks, which every font puts above the letter."""
_ACCENT = re.compile(r"<mover[^>]*><mrow><mi>(.)</mi></mrow><mo[^>]*>&#x(0005E|0007E|000AF);</mo></mover>")
_MATH = re.compile(r"<math.*?</math>", re.DOTALL)
_MERMAID = re.compile(r'<script type="module">(?:(?!</script>).)*mermaid.*?</script>', re.DOTALL)


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Replaces every formula of a page, and takes a script out that notebooks do not need."""
    replaced = _MERMAID.sub("", _FORMULA.sub(_mathml, content))
    unknown = any("\\" in formula for formula in _MATH.findall(replaced))  # a command that is no MathML
    if 'class="arithmatex"' in replaced or unknown:
        logger.warning("%s has a formula that was not understood", page.file.src_uri)
    return replaced


def _mathml(found: re.Match[str]) -> str:
    block = found["block"] is not None
    latex = html.unescape(found["block"] if block else found["inline"]).strip()
    formula: str = convert(latex, display="block" if block else "inline")
    formula = _ACCENT.sub(lambda accent: f'<mi class="accent">{accent[1]}{_MARKS[accent[2]]}</mi>', formula)
    return f'<div class="formula">{formula}</div>' if block else formula
