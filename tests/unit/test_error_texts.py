"""The exact words of the errors that users meet most often, on the command line and in Python."""

import re

import numpy as np
import pytest
from PIL import Image

from fewseg.cli import main
from fewseg.inference import ModelOptions, load_model
from fewseg.recipes.registry import RECIPES
from small_segmenters import picture, segmenter, tiny_checkpoint


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of its own with an image, a mask of its size, and supports of one class."""
    monkeypatch.setenv("FEWSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FEWSEG_SHARED", str(tmp_path / "shared"))
    monkeypatch.chdir(tmp_path)
    pixels, mask = picture(0)
    for name, array in {
        "photos/a.png": pixels,
        "sup/images/a.png": pixels,
        "sup/masks/a.png": mask,
        "turned/images/a.png": pixels,
        "turned/masks/a.png": np.ascontiguousarray(mask.T),
        "smooth/images/a.png": pixels,
        "smooth/masks/a.png": np.arange(mask.size).reshape(mask.shape).astype(np.uint8),
        "unmasked/images/a.png": pixels,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(tmp_path / name)
    (tmp_path / "unmasked/masks").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"")
    return tmp_path


LABEL = ("label", "--out", "out", "--images", "photos", "--support")

ERRORS = {
    "unknown command": (
        ("lable",),
        2,
        "unknown command 'lable': did you mean table or label?",
    ),
    "unknown kind of report": (
        ("report", "figure"),
        1,
        "unknown command 'report figure': did you mean report figures or report site or report tables?",
    ),
    "unknown recipe": (
        ("evaluate", "voc5i_mini_matchr"),
        1,
        "unknown recipe 'voc5i_mini_matchr': did you mean voc5i_mini_matcher or coco_mini_matcher "
        f"or voc5i_mini_panet? `fewseg train --help` lists all {len(RECIPES)}",
    ),
    "missing checkpoint": (
        ("evaluate", "gone.safetensors"),
        1,
        "no checkpoint at gone.safetensors: give the .safetensors file of a training run",
    ),
    "recipe that is not trained": (
        ("evaluate", "voc5i_mini_pfenet"),
        1,
        "voc5i_mini_pfenet must be trained first (`fewseg train voc5i_mini_pfenet`); then give "
        "its checkpoint",
    ),
    "number of episodes": (
        ("evaluate", "voc5i_mini_matcher", "--episodes", "0"),
        1,
        "--episodes must be at least 1, got 0",
    ),
    "missing root": (
        ("train", "pascal_pfenet_resnet50"),
        1,
        "PASCAL-5i needs --root: the folder that holds VOC 2012 and SBD as unpacked",
    ),
    "missing small set": (
        ("train", "voc5i_mini_pfenet"),
        1,
        "voc5i-mini is not at {folder}/shared/data/voc5i-mini: give --root, or set FEWSEG_SHARED "
        "to the folder that has data/voc5i-mini",
    ),
    "unknown part": (
        ("train", "voc5i_mini_pfenet", "--part", "method.prior=Nothing"),
        1,
        "part 'method.prior=Nothing': 'prior' takes PriorMap or NoPrior, not 'Nothing'",
    ),
    "missing folder of data": (
        ("data", "check", "folder", "gone"),
        1,
        "gone: the folder gone does not exist: give the path of the data set's root",
    ),
    "missing result file": (
        ("compare", "a.json", "b.json"),
        1,
        "there is no result file a.json: give the .json that `fewseg evaluate` wrote",
    ),
    "missing released weights": (
        ("import-checkpoint", "gone.pth", "new.safetensors"),
        1,
        "no weight file at gone.pth: give the path of a released .pth file",
    ),
    "missing supports": (
        (*LABEL, "gone"),
        1,
        "gone does not exist: give a folder of images and masks, YOLO or CVAT annotations, or JSON "
        "(COCO, LabelMe, Label Studio, VIA), or a saved support set (.safetensors)",
    ),
    "no supports": (
        (*LABEL, "empty"),
        1,
        "empty is empty; expected a folder of images and masks, YOLO or CVAT annotations, or JSON "
        "(COCO, LabelMe, Label Studio, VIA): give another folder",
    ),
    "mask of another size": (
        (*LABEL, "turned"),
        1,
        "turned: 1 of 1 annotated images cannot be used\n  turned/images/a.png: the image is 70 x "
        "50 pixels and its mask 50 x 70 (the image is turned by its EXIF orientation?); both must"
        " be of one size: export the mask again at the image's size",
    ),
    "values of a smoothed mask": (
        (*LABEL, "smooth"),
        1,
        "smooth: 1 of 1 annotated images cannot be used\n  mask smooth/masks/a.png holds 254 "
        "numbers besides 0 and 255, like [1, 2, 3, 4, 5]; expected one class a mask (0/1, 0/255 "
        "or a palette): threshold a smoothed mask and save it as PNG; several classes need a list"
        " of them all (classes.txt for supports, `image mask` lines for a data set)",
    ),
    "image without a mask": (
        (*LABEL, "unmasked"),
        1,
        "unmasked: 1 of 1 annotated images cannot be used\n  unmasked/images/a.png has no mask of "
        "its name, or several; expected one (x.png or x_mask.png; all 0 for a negative): add it, "
        "or take the image away",
    ),
    "missing images": (
        ("label", "--support", "sup", "--images", "gone", "--out", "out"),
        1,
        "gone does not exist: give a folder of images, a pattern or files",
    ),
    "folder without images": (
        ("label", "--support", "sup", "--images", "empty", "--out", "out"),
        1,
        "empty: found no images there (files that end in .jpg, .jpeg, .png, .bmp, .webp, .tif, "
        ".tiff, .gif): give their folder",
    ),
    "missing model": (
        (*LABEL, "sup", "--model", "gone.safetensors"),
        1,
        "no checkpoint at gone.safetensors: give the path of a .safetensors file",
    ),
    "threshold": (
        (*LABEL, "sup", "--threshold", "1.5"),
        1,
        "threshold must be in (0, 1), got 1.5",
    ),
    "formats of one file": (
        (*LABEL, "sup", "--format", "labelme", "labelme-polygons"),
        1,
        "labelme and labelme-polygons write the same files: choose one of them",
    ),
    "option of another backend": (
        (*LABEL, "sup", "--graphs", "g"),
        1,
        "--graphs is for the ONNX backend: give --backend onnx too, or leave it out",
    ),
    "batch": (
        (*LABEL, "sup", "--batch", "0"),
        1,
        "batch and workers must be 1 or more, got 0 and 2",
    ),
    "port": (
        ("serve", "--port", "70000"),
        1,
        "--port must be 0 (any free port) to 65535, got 70000",
    ),
}


@pytest.mark.parametrize(("words", "status", "text"), ERRORS.values(), ids=ERRORS.keys())
def test_a_mistake_on_the_command_line_gets_exactly_these_words(words, status, text, folder, capsys):
    assert main(list(words)) == status
    assert capsys.readouterr().err == f"fewseg: {text}\n".replace("{folder}", str(folder))


def fusion_that_the_method_lacks(folder):
    load_model(ModelOptions(model=str(tiny_checkpoint(folder / "tiny.safetensors")), fusion="cross-guided"))


def no_supports(folder):
    segmenter().segment(picture(0)[0])


def unreadable_image(folder):
    segmenter().encode("broken.png")


def fewer_masks_than_images(folder):
    segmenter().add_class("rust", [picture(0)[0]] * 2, [picture(0)[1]])


def mask_without_foreground(folder):
    segmenter().add_class("rust", picture(0)[0], picture(0)[1] * 0)


def threshold_of_one(folder):
    it = segmenter()
    it.add_class("rust", *picture(0))
    it.segment(picture(1)[0]).at(1.0)


def unknown_class(folder):
    it = segmenter()
    it.add_class("rust", *picture(0))
    it.segment(picture(1)[0]).mask("moss")


def floats_beyond_one(folder):
    segmenter().encode(picture(0)[0].astype(np.float32))


CALLS = {
    fusion_that_the_method_lacks: "Matcher cannot use the fusion 'cross-guided': choose one of mean, "
    "iterative",
    no_supports: "there is no support: add a class with an annotated image first (add_class)",
    unreadable_image: "image broken.png is empty (0 bytes): fetch it again, or leave it out",
    fewer_masks_than_images: "class 'rust': expected a mask for each image, None for one that does not show "
    "the class, got 2 images and 1 masks",
    mask_without_foreground: "no mask of 'rust' has foreground: a class needs at least one image that "
    "shows it; images with empty masks are its negatives",
    threshold_of_one: "threshold must be in (0, 1), got 1.0",
    unknown_class: "unknown class 'moss'; this segmentation has ['rust']",
    floats_beyond_one: "the image must hold floats in [0, 1], got values outside or NaN: divide bytes by "
    "255, and undo a normalisation",
}


@pytest.mark.parametrize(("call", "text"), CALLS.items(), ids=[call.__name__ for call in CALLS])
def test_a_mistake_in_python_gets_exactly_these_words(call, text, folder):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call(folder)
