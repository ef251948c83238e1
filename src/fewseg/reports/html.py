"""Self-contained HTML pages: text, tables and pictures, all in one file that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Markup:
    """HTML that is not to be escaped again."""

    text: str

    def __str__(self) -> str:
        return self.text


Cell = str | Markup


def escaped(cell: Cell) -> str:
    """Returns a cell as HTML; plain text is escaped."""
    return cell.text if isinstance(cell, Markup) else html.escape(cell)


def element(tag: str, *content: Cell, **attributes: str) -> Markup:
    """Returns ``<tag ...>content</tag>``; content and attribute values are escaped.

    Args:
        tag: name of the element.
        *content: text or markup.
        **attributes: ``class_`` stands for ``class``; other underscores for hyphens.
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    written = "".join(f' {name}="{html.escape(value)}"' for name, value in named.items())
    return Markup(f"<{tag}{written}>{''.join(map(escaped, content))}</{tag}>")


def joined(parts: Sequence[Cell]) -> Markup:
    """Returns parts one after another, each on a line of its own."""
    return Markup("\n".join(map(escaped, parts)))


def table(
    headings: Sequence[Cell],
    rows: Sequence[Sequence[Cell]],
    caption: str,
    text_columns: int = 1,
    apart: int = 0,
) -> Markup:
    """Returns a table that scrolls sideways on a narrow screen; the first cell of a row names it.

    Args:
        headings: one a column.
        rows: cells, as many as headings in each row.
        caption: what the numbers are and how they were measured.
        text_columns: how many columns from the left are text; the others are numbers.
        apart: how many columns from the right are not of the same kind as the others, and look so.

    Raises:
        ValueError: a row has another number of cells.
    """
    if any(len(row) != len(headings) for row in rows):
        raise ValueError(
            f"every row needs {len(headings)} cells, one a heading; got {[len(r) for r in rows]}"
        )
    kinds = ["text" if i < text_columns else "number" for i in range(len(headings))]
    kinds = [k + " apart" if i >= len(kinds) - apart else k for i, k in enumerate(kinds)]
    head = [element("th", h, scope="col", class_=k) for h, k in zip(headings, kinds, strict=True)]
    body = []
    for row in rows:
        first = element("th", row[0], scope="row", class_=kinds[0])
        rest = [element("td", c, class_=k) for c, k in zip(row[1:], kinds[1:], strict=True)]
        body.append(element("tr", first, *rest))
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", joined(body)),
    )
    return element("div", whole, class_="scroll", role="region", tabindex="0", aria_label=caption)


def bar(fraction: float, label: str) -> Markup:
    """Returns a number with a bar before it.

    Args:
        fraction: length of the bar, cut to [0, 1].
        label: the number as text; the bar itself is hidden from screen readers.
    """
    width = 100 * min(max(fraction, 0.0), 1.0)
    return Markup(
        f'<span class="bar" aria-hidden="true"><i style="width:{width:.1f}%"></i></span>{html.escape(label)}'
    )


def figure(picture: NDArray[np.uint8], alt: str, caption: Cell) -> Markup:
    """Returns a picture with its caption.

    Args:
        picture: (H, W, 3) uint8 RGB.
        alt: what a reader who does not see it should know.
        caption: the text below.
    """
    height, width = picture.shape[:2]
    size = f'width="{width}" height="{height}"'
    image = Markup(f'<img src="{png_uri(picture)}" alt="{html.escape(alt)}" {size} loading="lazy">')
    return element("figure", image, element("figcaption", caption))


def png_uri(picture: NDArray[np.uint8], colours: int = 160) -> str:
    """Returns a picture as a PNG data URI, reduced to a palette of so many colours."""
    palette = Image.fromarray(picture).quantize(colours, dither=Image.Dither.NONE)
    file = io.BytesIO()
    palette.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def page(title: str, *content: Cell, style: str = "", script: str = "") -> str:
    """Returns a whole page; its policy forbids every request, so it looks the same offline.

    Args:
        title: of the page.
        *content: of its body.
        style: rules after those that all pages share.
        script: the one script that may run, at the end of the body; it is named by its digest, so that no
            other text of the page can run.
    """
    shared = resources.files("fewseg.reports").joinpath("assets/page.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    run = ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        run = f"<script>{script}</script>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{shared}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{joined(content)}\n</main>\n{run}</body>\n</html>\n"
    )
