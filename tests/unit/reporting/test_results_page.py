import json

import pytest

from fewseg.engine.environment import Environment
from fewseg.engine.results import counts_path
from fewseg.reports import tables
from fewseg.reports.frame import load_results
from fewseg.reports.tables import BEGIN, END, results_block, some_results


def results_page(folder):
    return results_block(some_results(folder))


def update_page(page, folder):
    tables.update_page(page, some_results(folder))


@pytest.fixture
def folder(write):
    for fold in range(4):
        write(f"pfenet/fold{fold}", fold)
        write(f"scl/fold{fold}", fold, better=0.03, method="scl-pfenet", recipe="voc5i_mini_scl")
    return write("more/average", 3, shots=5, fusion="average").parents[1]


def test_the_page_has_a_section_a_table(folder):
    page = results_page(folder)
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## voc5i-mini, 1-shot",
        "## voc5i-mini, 5-shot",
    ]
    one, five = page.split("## voc5i-mini, 5-shot")
    assert "| pfenet | mean |" in one
    assert "| scl-pfenet | mean |" in one
    assert "| scl-pfenet mean over pfenet mean | +" in one
    assert "missing folds 0, 1, 2" in five
    assert "gain in mIoU points" not in five
    assert "Left out" not in page
    assert page.endswith("\n")


def test_a_row_of_a_model_that_its_recipe_no_longer_has_says_so(folder, write):
    made = {"method": "sdaanet", "recipe": "voc5i_mini_sdaanet_separate"}
    config = {"method": {"type": "SDAANetConfig", "attention": {"type": "NoAttention"}}}
    for fold in range(2):
        write(f"separate/fold{fold}", fold, config=config, **made)
    said = [line for line in results_page(folder).splitlines() if "not the model" in line]
    assert said == [
        "- sdaanet mean: not the model that its recipe has now, but NoAttention in place of "
        "SupervisedAttention."
    ]


def test_every_class_stands_by_name_with_its_iou_in_percent(folder):
    results = {r.method: r for r in load_results(folder).runs.values() if r.fold == 1 and r.shots == 1}
    values = [f"{100 * results[m].per_class_mean[3]:.1f}" for m in ("pfenet", "scl-pfenet")]
    page = results_page(folder)
    assert f"| bird | 1 | {values[0]} | {values[1]} |" in page
    assert "| class | fold | pfenet mean | scl-pfenet mean |" in page
    dice = page.split("Dice of each class")[1].split("##")[0]
    ratios = [[2 * s.per_class[3] / (1 + s.per_class[3]) for s in results[m].seeds] for m in results]
    shown = [f"{100 * sum(each) / len(each):.1f}" for each in ratios]
    assert f"| bird | 1 | {shown[0]} | {shown[1]} |" in dice
    five = page.split("## voc5i-mini, 5-shot")[1]
    assert "| cat | 3 |" in five
    assert "| bird |" not in five


def test_every_row_says_how_it_was_made(folder):
    page = results_page(folder)
    assert (
        "- scl-pfenet mean: recipe voc5i_mini_scl; evaluated in 2.00 h for 4 folds on one core\n"
        "  - config: method.type PFENet, method.channels 64\n"
        "  - training: config.steps 100, config.view.size 241, config.held_out [7]\n"
    ) in page
    assert "evaluated in 0.50 h for 1 fold on one core" in page


def test_hardware_that_differs_between_folds_is_all_named(write):
    for fold, hardware in enumerate(["two cores", "one core"]):
        folder = write(f"x{fold}", fold, made_with=Environment(versions={}, hardware=hardware)).parent
    assert "for 2 folds on one core; or two cores" in results_page(folder)


def test_a_row_without_recipe_or_training_says_so(write):
    folder = write("x", recipe="", training={}).parent
    assert "recipe none;" in results_page(folder)
    assert "training: not recorded\n" in results_page(folder)


def test_damaged_results_are_named_and_the_rest_is_made(folder):
    broken = folder / "pfenet" / "fold1.json"
    broken.write_text(broken.read_text()[:100])
    counts_path(folder / "pfenet" / "fold2.json").unlink()
    (folder / "config.json").write_text(json.dumps({"schema": 1}))
    page = results_page(folder)
    assert "missing folds 1, 2" in page
    left_out = page.split("Left out, because they could not be read:\n\n")[1]
    assert left_out.startswith("- pfenet/fold1.json is not a whole JSON file")
    assert "- pfenet/fold2.counts.npz is missing" in left_out
    assert left_out.count("\n- ") == 1, "a file that is no result is not spoken of"
    assert str(folder) not in page


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no result that can be read: evaluate first"):
        results_page(tmp_path)
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "x.counts.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no result that can be read: x\.json is not a whole JSON file"):
        results_page(tmp_path)


def test_the_block_is_added_to_a_page_and_replaced_the_next_time(folder, tmp_path):
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nWhat we found.\n")
    update_page(page, folder)
    first = page.read_text()
    assert first == f"# Results\n\nWhat we found.\n\n{BEGIN}\n\n{results_page(folder)}\n{END}\n"
    page.write_text(first + "\nAfterword.\n")
    for path in (folder / "more").iterdir():
        path.unlink()
    update_page(page, folder)
    second = page.read_text()
    assert "5-shot" in first
    assert "5-shot" not in second
    assert second.startswith("# Results\n\nWhat we found.\n\n" + BEGIN)
    assert second.endswith(END + "\n\nAfterword.\n")


def test_a_page_that_does_not_exist_is_made(folder, tmp_path):
    update_page(tmp_path / "docs" / "results.md", folder)
    assert (tmp_path / "docs" / "results.md").read_text().startswith(f"# Results\n\n{BEGIN}")


@pytest.mark.parametrize("marker", [BEGIN, END])
def test_a_page_with_half_of_the_markers_is_left_alone(folder, tmp_path, marker):
    page = tmp_path / "results.md"
    page.write_text(f"x\n{marker}\n")
    with pytest.raises(ValueError, match="one marker of the block without the other"):
        update_page(page, folder)
    assert page.read_text() == f"x\n{marker}\n"
