"""Hooks of MkDocs: formulas become MathML when the site is built, so that pages load no script for them."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])</(?P=tag)>', re.S
)


def on_page_content(content: str, **_: Any) -> str:
    """Replaces every formula of a page."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    block = found["block"] is not None
    latex = html.unescape(found["block"] if block else found["inline"]).strip()
    formula = convert(latex, display="block" if block else "inline")
    return f'<div class="formula">{formula}</div>' if block else formula
