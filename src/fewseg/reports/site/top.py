"""The head of the page: what it shows, where to find it, how it looks, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fewseg.engine.results import RunResult
from fewseg.reports.html import Cell, Markup, element
from fewseg.reports.site.provenance import versions_of

_SHORT = 12
"""So many lines of what is missing are shown at once."""


@dataclass(frozen=True)
class Part:
    """A part of the page.

    Attributes:
        id: of its section.
        title: in the list of contents.
        content: the section, or nothing.
    """

    id: str
    title: str
    content: list[Cell]


def top(
    name: str, results: Sequence[RunResult], parts: Sequence[Part], problems: Sequence[str]
) -> list[Cell]:
    """What stands before the parts.

    Args:
        name: of the folder.
        results: those that the page shows.
        parts: of the page.
        problems: what is missing or could not be used.
    """
    links = [element("li", element("a", part.title, href=f"#{part.id}")) for part in parts]
    if problems:
        links.append(element("li", element("a", f"What is missing ({len(problems)})", href="#missing")))
    return [
        element("a", "Skip to the results", href=f"#{parts[0].id if parts else 'missing'}", class_="skip"),
        element("header", element("h1", f"Results: {name}"), _theme()),
        element("p", _told(results), class_="lead"),
        element("nav", element("ul", *links), aria_label="Contents"),
        *_missing(problems),
    ]


def _told(results: Sequence[RunResult]) -> str:
    if not results:
        return "There is no result that can be shown."
    methods = sorted({r.method for r in results})
    sets = sorted({r.dataset for r in results})
    many = "results" if len(results) > 1 else "result"
    return (
        f"{len(results)} {many} of {', '.join(methods)} on {', '.join(sets)}; measured by "
        f"{versions_of(results)}."
    )


def _theme() -> Markup:
    """Three radio buttons that the style sheet reads by itself."""
    choices = []
    for value, name in (("auto", "as the system"), ("light", "light"), ("dark", "dark")):
        checked = " checked" if value == "auto" else ""
        button = Markup(f'<input type="radio" name="theme" id="theme-{value}" value="{value}"{checked}>')
        choices.append(element("label", button, name))
    return element("fieldset", element("legend", "Colours"), *choices, class_="theme")


def _missing(problems: Sequence[str]) -> list[Cell]:
    if not problems:
        return []
    items = [element("li", problem) for problem in problems]
    count = f"What is missing or could not be used ({len(problems)})"
    summary = element("summary", element("strong", count))
    kept_open = {"open": ""} if len(problems) <= _SHORT else {}
    return [element("aside", element("details", summary, element("ul", *items), **kept_open), id="missing")]
