"""``fewseg completion SHELL``: a script by which a shell completes commands, options, choices and recipes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Literal

import tyro
from rich.console import Console

from fewseg.recipes.names import recipe_names

_BASH = """_fewseg() {
  local choices
  choices=$(fewseg --complete "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
  COMPREPLY=($(compgen -W "$choices" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _fewseg fewseg
"""
_SCRIPTS = {
    "bash": _BASH,
    "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{_BASH}",
    "fish": 'complete -c fewseg -a "(fewseg --complete (commandline -opc)[2..] 2>/dev/null)"\n',
}
_OF_RECIPES = ("train", "evaluate", "episodes")


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """Prints the script; add `eval "$(fewseg completion bash)"` to ~/.bashrc, or the like for the others."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]  # which shell.


def run(options: CompletionOptions, console: Console) -> None:
    """Prints the script of a shell."""
    console.out(_SCRIPTS[options.shell], highlight=False, end="")


def completions(words: Sequence[str], commands: dict[str, str]) -> list[str]:
    """What may follow the words after ``fewseg``; ``commands`` has the options class of each by its name."""
    given = list(words)
    name = next((name for name in commands if name.split() == given[: len(name.split())]), None)
    if name is None:
        following = [name.split()[len(given) :] for name in commands if name.split()[: len(given)] == given]
        return list(dict.fromkeys(rest[0] for rest in following if rest))
    rest = words[len(name.split()) :]
    if not rest and name in _OF_RECIPES:
        return sorted(recipe_names())
    module, kind = commands[name].split(":")
    options = getattr(import_module(f"fewseg.{module}"), kind)
    if not isinstance(options, type):  # they depend on the words
        return []
    parser = tyro.extras.get_parser(options, config=(tyro.conf.OmitArgPrefixes,))
    actions: list[argparse.Action] = parser._actions
    last = rest[-1] if rest else ""
    for action in actions:
        positional = not action.option_strings and not rest
        if action.choices and (positional or last in action.option_strings):
            return [str(choice) for choice in action.choices]
    return [option for action in actions for option in action.option_strings if option.startswith("--")]
