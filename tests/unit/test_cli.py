"""The command line: every mistake gets one clear paragraph and the right exit status."""

import io
import json
import logging
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from rich.console import Console

from fewseg import cli
from fewseg.cli import log_handler, main
from fewseg.recipes import registry, run
from fewseg.recipes.names import recipe_names


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    """Nothing is read from or written to the user's own folders."""
    monkeypatch.setenv("FEWSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FEWSEG_SHARED", str(tmp_path / "shared"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fewseg(capsys):
    """(words) -> exit status and what was printed, white space joined."""

    def run(*words):
        try:
            status = main(list(words))
        except SystemExit as left:
            status = left.code
        captured = capsys.readouterr()
        return status, " ".join(captured.out.split()), " ".join(captured.err.split())

    return run


def test_help_names_every_command(fewseg):
    for words, status in (((), 2), (("--help",), 0), (("-h",), 0)):
        found, out, _ = fewseg(*words)
        assert found == status
        for name in cli.COMMANDS:
            assert f"fewseg {name}" in out


@pytest.mark.parametrize("group", ["data", "report"])
def test_the_first_word_of_a_command_of_two_lists_the_second_ones(fewseg, group):
    status, out, _ = fewseg(group, "--help")
    assert status == 0
    assert {name for name in cli.COMMANDS if f"fewseg {name}" in out} == {
        name for name in cli.COMMANDS if name.startswith(group)
    }


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--help",),
        ("--version",),
        ("lable",),
        ("report", "figure"),
        ("label", "--suport", "x"),
        ("export", "--outt", "x"),
        ("data", "check", "--help"),
        ("data", "check", "coco", "x", "--min-aera", "9"),
    ],
)
def test_a_wrong_word_is_reported_without_importing_torch(words):
    code = f"import sys\nfrom fewseg.cli import main\ntry: main({list(words)})\nexcept SystemExit: pass\n"
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)


@pytest.mark.parametrize(
    ("code", "most", "packages"),
    [
        ("import fewseg", 60, {"fewseg"}),
        ("from fewseg.cli import main\nmain(['--help'])", 200, {"fewseg", "rich"}),
    ],
)
def test_the_package_and_its_help_import_few_modules(code, most, packages):
    code = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = done.stdout.splitlines()[-1].split()
    assert {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) == packages
    assert len(found) <= most


_LABEL = ("label", "--support", "sup", "--out", "out", "--images")


_MISTAKES = [
    ((*_LABEL, "empty"), "empty: found no images there"),
    ((*_LABEL, "phots"), "phots does not exist"),
    ((*_LABEL, "empty/*.png"), "found no images there"),
    (("label", "--support", "sup", "--out", "sup", "--images", "sup"), "found no images there"),
    ((*_LABEL, "sup", "--model", "voc5i_mini_matchr"), "did you mean voc5i_mini_matcher"),
    ((*_LABEL, "sup", "--model", "auto:fitted_resnet5"), "did you mean fitted_resnet50"),
    ((*_LABEL, "sup", "--model", "gone.safetensors"), "no checkpoint at gone.safetensors"),
    ((*_LABEL, "sup", "--support", "suport"), "suport does not exist"),
    ((*_LABEL, "sup", "--instances", "watershed", "--min-area", "0"), "1 pixel or more, got 0"),
    ((*_LABEL, "sup", "--value-range", "5", "5"), "the lower one first, got 5 and 5"),
]


def test_a_mistake_of_label_is_found_before_torch_is_imported(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "sup").mkdir()
    (tmp_path / "sup" / "x.png").write_bytes(b"x")
    words = [list(words) for words, _ in _MISTAKES]
    code = f"import sys\nfrom fewseg.cli import main\nassert all(main(own) == 1 for own in {words})\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line, (_, message) in zip(done.stderr.splitlines(), _MISTAKES, strict=True):
        assert message in line


def test_the_names_of_recipes_are_known_before_they_are_imported(monkeypatch):
    known = set(registry.RECIPES)
    monkeypatch.delitem(sys.modules, "fewseg.recipes.recipe")
    assert recipe_names() == known


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "train"])
def test_every_command_lists_its_options(fewseg, name):
    status, out, _ = fewseg(*name.split(), "--help")
    assert status == 0
    assert f"fewseg {name}" in out


def test_the_help_of_train_names_the_recipes_and_that_of_a_recipe_its_fields(fewseg):
    status, out, _ = fewseg("train", "--help")
    assert status == 0
    assert all(name in out for name in registry.RECIPES)
    status, out, _ = fewseg("train", "voc5i_mini_scl", "--help")
    assert status == 0
    for option in ("--fold", "--train.steps", "--train.optimiser.lr", "--method.channels", "--part"):
        assert option in out


def test_words_that_look_like_markup_are_printed_as_they_are(fewseg):
    status, _, error = fewseg("[/red]")
    assert status == 2
    assert "unknown command '[/red]'" in error
    status, _, error = fewseg("evaluate", "[bold]gone[/bold].safetensors")
    assert status == 1
    assert "[bold]gone[/bold].safetensors" in error


def test_a_recipe_like_no_other_gets_no_list_but_where_to_find_it(fewseg):
    status, _, error = fewseg("evaluate", "nope")
    assert status == 1
    assert "unknown recipe 'nope': no name is near it. `fewseg train --help` lists all" in error
    assert not any(name in error for name in registry.RECIPES)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            PermissionError(13, "could not write x: Permission denied"),
            "fewseg: could not write x: Permission",
        ),
        (FileExistsError(17, "File exists", "model.json"), "fewseg: model.json: File exists"),
        (OSError("plain words"), "fewseg: plain words"),
    ],
)
def test_errors_of_the_system_are_reported_without_their_number(fewseg, monkeypatch, error, words):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    status, _, shown = fewseg("compare")
    assert status == 1
    assert shown.startswith(words)


def test_train_without_a_recipe_names_them(fewseg):
    status, out, error = fewseg("train")
    assert status == 1
    assert "no recipe given" in error
    assert "voc5i_mini_scl" in out


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("evaluate", "x", "--episods", "3"), "--episodes"),
        (("train", "voc5i_mini_pfenet", "--train.step", "3"), "--train.steps"),
        (("train", "voc5i_mini_pfenet", "--method.chanels", "3"), "--method.channels"),
        (("train", "voc5i_mini_pfenet", "--train.steps", "many"), "many"),
    ],
)
def test_an_unknown_option_gets_its_neighbours_and_a_wrong_value_is_named(fewseg, words, near):
    status, out, error = fewseg(*words)
    assert status == 2
    assert near in out + error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "voc5i_mini_pfenet", "--root", "gone"), "voc5i-mini is not at gone: give --root"),
        (("train", "pascal_pfenet_resnet50", "--root", "gone"), "gone"),
        (("train", "voc5i_mini_matcher"), "has nothing to train: `fewseg evaluate voc5i_mini_matcher`"),
        (("train", "voc5i_mini_pfenet", "--fold", "4"), "voc5i-mini is not at"),
        (("train", "voc5i_mini_pfenet", "--part", "prior"), "must be written NAME=CLASS"),
        (("train", "voc5i_mini_pfenet", "--part", "method.prior=SGD"), "not 'SGD'"),
        (("train", "voc5i_mini_pfenet", "--part"), "--part needs a value NAME=CLASS"),
        (
            ("evaluate", "x", "--manifest", "m.jsonl", "--seeds", "1"),
            "leave --ways, --shots, --episodes, --seeds and --protocol out",
        ),
        (("train", "voc5i_mini_pfenet", "--part", "method.pior=NoPrior"), "has no field 'pior'"),
        (("report",), "unknown command 'report': did you mean report"),
        (("data", "folder", "gone"), "unknown command 'data folder': did you mean data check?"),
        (("data", "check", "pascal", "gone"), "SBD ("),
        (("data", "check", "coco", "gone"), "WRONG COCO 2014: the folder gone does not exist"),
        (("data", "check", "fss1000", "gone"), "WRONG FSS-1000: the folder gone does not exist"),
        (("data", "check", "list", "."), "needs --list-file"),
        (("data", "check", "voc5i-mini", "gone"), "voc5i-mini is not at gone"),
    ],
)
def test_what_is_missing_or_wrong_is_reported_in_one_paragraph(fewseg, words, message):
    status, out, error = fewseg(*words)
    assert status == 1
    assert message in f"{out} {error}"
    assert "Traceback" not in error


def test_parts_and_options_reach_the_recipe(fewseg, monkeypatch):
    caught = {}

    monkeypatch.setattr(
        run, "train_recipe", lambda recipe, data, folder, **rest: caught.update(recipe=recipe, folder=folder)
    )
    recipe = registry.RECIPES["voc5i_mini_scl"]()
    object.__setattr__(recipe, "data", lambda fold, root: fold)
    monkeypatch.setitem(registry.RECIPES, "voc5i_mini_scl", lambda: recipe)
    status, _, _ = fewseg(
        "train", "voc5i_mini_scl", "--part", "method.prior=NoPrior", "--train.steps", "7",
        "--method.scales", "12", "0.5", "--train.seed", "2", "--fold", "3",
    )  # fmt: skip
    assert status == 0
    chosen = caught["recipe"]
    assert chosen.method.prior.kind == "none"
    assert (chosen.train.steps, chosen.train.seed) == (7, 2)
    assert chosen.method.scales == (12, 0.5)
    assert chosen.method.backbone == recipe.method.backbone
    assert caught["folder"].name == "voc5i_mini_scl-fold3-seed2"


def test_unchanged_scales_keep_their_kind(fewseg, monkeypatch):
    caught = []
    monkeypatch.setattr(run, "train_recipe", lambda recipe, *rest, **named: caught.append(recipe))
    recipe = registry.RECIPES["pascal_scl_pfenet_resnet50"]()
    object.__setattr__(recipe, "data", lambda fold, root: fold)
    monkeypatch.setitem(registry.RECIPES, recipe.name, lambda: recipe)
    assert fewseg("train", recipe.name, "--train.batch", "8")[0] == 0
    assert caught[0].method == recipe.method
    assert {type(s) for s in caught[0].method.scales} == {int}


@pytest.mark.parametrize(
    ("name", "goes_on"),
    [
        ("train", "; the same command goes on from the last checkpoint"),
        (
            "evaluate",
            "; what is finished is kept and the same command goes on, if no code is uncommitted",
        ),
        ("data check", ""),
    ],
)
def test_an_interrupt_leaves_with_130_and_states_what_is_kept(fewseg, monkeypatch, name, goes_on):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert fewseg(*name.split(), "anything") == (130, "", f"fewseg: interrupted{goes_on}")


@pytest.mark.parametrize(
    ("detail", "shown"),
    [("", ""), ("Unable to allocate 28 GiB\nfor an array", " (Unable to allocate 28 GiB)")],
)
def test_too_little_memory_is_one_line(fewseg, monkeypatch, detail, shown):
    def full(*_):
        raise MemoryError(detail)

    monkeypatch.setattr(cli, "_run", full)
    error = f"there is not enough memory{shown}: make the images or the batch smaller, or free some memory"
    assert fewseg("data", "check") == (1, "", f"fewseg: {error}")


def test_a_programming_error_is_not_hidden(monkeypatch):
    def wrong(*_):
        raise KeyError("x")

    monkeypatch.setattr(cli, "_run", wrong)
    with pytest.raises(KeyError):
        main(["data", "check"])


def test_data_folder_lists_what_it_holds(fewseg, tmp_path, write_image, write_mask):
    mask = np.zeros((40, 50), np.uint8)
    mask[:20, :30] = 255
    for name, count in (("cat", 3), ("dog", 2)):
        for i in range(count):
            write_image(tmp_path / "set" / name / "images" / f"{i}.png", (40, 50))
            write_mask(tmp_path / "set" / name / "masks" / f"{i}.png", mask)
    status, out, _ = fewseg("data", "check", "folder", "set", "--min-area", "100")
    assert status == 0
    assert all(text in out for text in ("5 images", "cat", "dog"))
    (tmp_path / "set" / "cat" / "masks" / "1.png").unlink()
    status, _, error = fewseg("data", "check", "folder", "set")
    assert (status, "1.png" in error) == (1, True)


class RunsCode:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_malicious_pickle_is_refused_and_its_code_does_not_run(fewseg, tmp_path, kind):
    mark, path = tmp_path / "the code ran", tmp_path / "released.pth"
    content = {"state_dict": RunsCode(str(mark))}
    if kind == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    status, _, error = fewseg("import-checkpoint", "released.pth", "new.safetensors")
    assert status == 1
    assert "released.pth is refused: it is damaged or could run code" in error
    assert not mark.exists()
    assert not (tmp_path / "new.safetensors").exists()


def test_a_pickle_in_the_place_of_a_checkpoint_is_refused(fewseg, tmp_path):
    mark, path = tmp_path / "the code ran", tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(RunsCode(str(mark))))
    status, _, error = fewseg("evaluate", "model.safetensors")
    assert status == 1
    assert "not a complete safetensors file" in error
    assert not mark.exists()


def test_a_damaged_result_is_reported(fewseg, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"schema": 1})[:-3])
    status, _, error = fewseg("compare", "a.json", "a.json")
    assert status == 1
    assert "is not a whole JSON file" in error


def test_messages_are_whole_lines_where_no_terminal_is():
    file = io.StringIO()
    text = "skipped: image " + "a/long/path/" * 20 + "x.png is empty (0 bytes): fetch it again"
    handler = log_handler(Console(file=file, width=40))
    handler.handle(logging.LogRecord("fewseg", logging.WARNING, "", 0, text, None, None))
    assert file.getvalue() == text + "\n"
