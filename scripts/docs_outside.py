"""Checks that no page of a built site loads anything from elsewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc=["']?(?P<src>(?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?![^>]*\brel=["']?(?:canonical|alternate|next|prev))[^>]*?\bhref=["']?(?P<href>(?:https?:)?//[^"'\s>]+)"""
    r"""|@import\s+(?:url\()?["']?(?P<css>(?:https?:)?//[^"'\s)]+)"""
    r"""|url\(["']?(?P<url>(?:https?:)?//[^"'\s)]+)"""
)


def main(site: Path) -> int:
    """Prints what is loaded from outside; 1 if anything is."""
    pages = [path for path in sorted(site.rglob("*")) if path.suffix in (".html", ".css")]
    if not pages:
        print(f"{site} has no page: build the site first")
        return 1
    outside = [
        f"{path.relative_to(site)}: {next(filter(None, found.groups()))}"
        for path in pages
        for found in _LOADED.finditer(path.read_text(encoding="utf-8"))
    ]
    print("\n".join(outside) or f"{len(pages)} pages and style sheets load nothing from elsewhere")
    return bool(outside)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
