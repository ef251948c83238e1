"""Templates for HTML, Markdown and LaTeX; every value is escaped for the format of its template."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fewseg.reports.numbers import gain_with_interval, percent

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        '"': "''",
        "±": r"$\pm$",
        "†": r"\dag{}",
        "⁰": "$^0$",
        "¹": "$^1$",
        "²": "$^2$",
        "³": "$^3$",
        "\n": " ",
    }
)

_LATEX_SIGNS: dict[str, Any] = {
    "block_start_string": "<%",
    "block_end_string": "%>",
    "variable_start_string": "<<",
    "variable_end_string": ">>",
}
"""Delimiters of LaTeX templates, where braces have another meaning."""


def latex(text: str) -> str:
    """Text with all special characters of LaTeX escaped."""
    return text.translate(_LATEX)


def markdown(text: str) -> str:
    """Text with the special characters of Markdown escaped: emphasis, strikes, code, HTML, table borders."""
    return re.sub(r"[\\*<`~|]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


_ESCAPES: dict[str, Callable[[str], str]] = {"md": markdown, "tex": latex}


@lru_cache
def _environment(kind: str) -> Environment:
    escape = _ESCAPES.get(kind)

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) or escape is None else escape(str(value))

    environment = Environment(
        loader=PackageLoader("fewseg.reports"),
        autoescape=escape is None,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(_LATEX_SIGNS if kind == "tex" else {}),
    )
    environment.filters.update(script_digest=script_digest, percent=percent, gain=gain_with_interval)
    return environment


def render(template: str, **values: Any) -> str:
    """Fills a template of ``reports/templates``; its suffix decides how values are escaped."""
    return _environment(template.rsplit(".", 1)[-1]).get_template(template).render(**values)


def asset(name: str) -> Markup:
    """A style sheet or script of ``reports/assets``, for embedding into a page."""
    return Markup(resources.files("fewseg.reports").joinpath(f"assets/{name}").read_text(encoding="utf-8"))


def script_digest(script: str) -> str:
    """The SHA-256 source expression of a script in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
