"""What a shell offers after the words of a command line."""

import shutil
import subprocess
import sys

import pytest

from fewseg.annotations.formats import FORMATS
from fewseg.cli import COMMANDS, main
from fewseg.recipes.registry import RECIPES


@pytest.fixture
def offered(capsys):
    def ask(*words):
        assert main(["--complete", *words]) == 0
        return capsys.readouterr().out.split()

    return ask


def test_first_words_and_second_words_of_commands_are_offered(offered):
    assert set(offered()) == {name.split()[0] for name in COMMANDS}
    assert offered("report") == ["tables", "figures", "site"]
    assert offered("nonsense") == []


@pytest.mark.parametrize("command", ["train", "evaluate", "episodes"])
def test_recipes_are_offered_where_one_is_expected(offered, command):
    assert offered(command) == sorted(RECIPES)


def test_options_and_their_choices_are_offered(offered):
    options = offered("label")
    assert {"--support", "--images", "--out", "--model", "--format", "--precision"} <= set(options)
    assert offered("label", "--format") == list(FORMATS)
    assert offered("label", "--support", "x", "--precision") == ["auto", "fp32", "bf16"]
    assert offered("label", "--precision", "fp32") == options
    assert offered("completion") == ["bash", "zsh", "fish"]
    assert "--shots" in offered("evaluate", "x.safetensors")
    assert offered("train", "voc5i_mini_scl") == []  # they depend on the recipe


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_with_the_printed_script(capfd, tmp_path):
    assert main(["completion", "bash"]) == 0
    program = tmp_path / "fewseg"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m fewseg "$@"\n')
    program.chmod(0o755)
    ask = "COMP_WORDS=(fewseg report t); COMP_CWORD=2; _fewseg; echo ${COMPREPLY[@]}"
    script = f"PATH={tmp_path}:$PATH\n{capfd.readouterr().out}\n{ask}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tables"]


@pytest.mark.parametrize(("shell", "words"), [("zsh", "bashcompinit"), ("fish", "complete -c fewseg")])
def test_other_shells_have_a_script(capsys, shell, words):
    assert main(["completion", shell]) == 0
    assert words in capsys.readouterr().out
