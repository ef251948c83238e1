"""The names of all recipes, read from the source: a misspelled one is found before torch is imported."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection
from importlib.metadata import entry_points
from pathlib import Path

_REGISTERED = re.compile(r"^@register\(.*?^def (\w+)\(", re.MULTILINE | re.DOTALL)


def recipe_names() -> set[str]:
    """The names of fewseg's recipes, and of those that were registered since."""
    files = Path(__file__).parent.glob("*.py")
    known = getattr(sys.modules.get("fewseg.recipes.recipe"), "RECIPES", ())
    return {name for file in files for name in _REGISTERED.findall(file.read_text("utf-8"))} | set(known)


def check_recipe_name(name: str, others: Collection[str] = ()) -> None:
    """Raises a ValueError for a name that no recipe has; those of other packages are looked up later.

    Args:
        name: of a recipe.
        others: names that are valid too.
    """
    known = recipe_names()
    if name not in {*known, *others} and not entry_points(group="fewseg.methods"):
        raise unknown_recipe(name, known, others)


def unknown_recipe(name: str, names: Collection[str], others: Collection[str] = ()) -> ValueError:
    """The error of a name that is none of these, with the near ones."""
    near = difflib.get_close_matches(name, sorted({*names, *others}))
    meant = f"did you mean {' or '.join(near)}?" if near else "no name is near it."
    return ValueError(f"unknown recipe {name!r}: {meant} `fewseg train --help` lists all {len(names)}")
