"""Single functions give the numbers of the authors' released functions."""

import numpy as np
import pytest
import torch

from fewseg.methods.fusion import region_iou
from fewseg.methods.layers import PriorMap
from fewseg.methods.losses import tempered_kl
from fewseg.methods.scl import primary_and_auxiliary
from fewseg.metrics.counts import count
from fewseg.ops.masks import masked_average
from fewseg.types import Features


@pytest.fixture(scope="module")
def case(golden):
    return golden("units")


@pytest.mark.parametrize("kind", ["soft", "binary", "empty"])
def test_masked_average_pooling(case, kind):
    pooled = masked_average(case.input("gap_feat"), case.input(f"gap_mask_{kind}"))
    case.assert_close(pooled, f"weighted_gap_{kind}")


@pytest.mark.parametrize("kind", ["soft", "binary", "empty"])
def test_primary_and_auxiliary_vectors_of_whole_cells(case, kind):
    cells, logits = case.input(f"gap_mask_{kind}"), case.input("pred_logits")
    assert torch.equal(logits.argmax(dim=1, keepdim=True), case.input("pred_mask").long())
    primary, auxiliary = primary_and_auxiliary(case.input("gap_feat"), cells, logits, threshold=1.0)
    case.assert_close(primary, f"scl_pfenet_pri_{kind}")
    case.assert_close(auxiliary, f"scl_pfenet_aux_{kind}")


def test_the_distillation_loss_and_its_gradients_into_student_and_teacher(case):
    student = case.input("kd_student").flatten(1).requires_grad_()
    teacher = case.input("kd_teacher").flatten(1).requires_grad_()
    loss = tempered_kl(student, teacher, temperature=5.0, factor=0.9 * 25).mean()
    case.assert_close(loss, "kd_loss")
    found = torch.autograd.grad(loss, (student, teacher))
    case.assert_close(found[0][..., None, None], "kd_grad_student")
    case.assert_close(found[1][..., None, None], "kd_grad_teacher")


@pytest.mark.parametrize("kind", ["soft", "binary", "empty"])
def test_primary_and_auxiliary_vectors_of_truncated_cells(case, kind):
    cells, logits = case.input(f"gap_mask_{kind}"), case.input("pred_logits")
    primary, auxiliary = primary_and_auxiliary(case.input("gap_feat"), cells, logits, threshold="truncated")
    case.assert_close(primary, f"canet_pri_{kind}")
    case.assert_close(auxiliary, f"canet_aux_{kind}")


def prior(case, masks, shots, size):
    """The prior map of the first ``shots`` supports, masks (n, H, W) each."""
    config = PriorMap(level="layer4", masked_input=None)
    pairs = []
    for shot in range(shots):
        maps = {"layer4": case.input(f"prior_supp4_{shot}")}
        features = Features(maps=maps, image_size=tuple(masks[shot].shape[-2:]))
        pairs.append(config.keys(features, masks[shot], rerun=None))
    longest = max(keys.shape[2] for keys, _ in pairs)
    keys = [torch.nn.functional.pad(keys, (0, 0, 0, longest - keys.shape[2])) for keys, _ in pairs]
    valid = [torch.nn.functional.pad(valid, (0, longest - valid.shape[2])) for _, valid in pairs]
    query = config.query_map(Features(maps={"layer4": case.input("prior_query4")}, image_size=size))
    return config.compare(query, torch.cat(keys, 1), torch.cat(valid, 1), size)


def test_prior_map_of_one_and_of_three_shots(case):
    masks = case.input("prior_masks")[:, :, 0]
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    case.assert_close(prior(case, masks, 1, (9, 9)), "prior_1shot")
    case.assert_close(prior(case, masks, 3, (9, 9)), "prior_3shot")
    case.assert_close(prior(case, masks, 3, (17, 17)), "prior_3shot_upsampled")


def test_prior_map_of_an_empty_mask_is_zero(case):
    masks = torch.zeros_like(case.input("prior_masks")[:, :, 0])
    case.assert_close(prior(case, masks, 1, (9, 9)), "prior_empty_mask")


def counted(case, name, classes):
    """Intersection, union and target area (3, classes) over all images, each class against the rest."""
    output, target = case.arrays[f"in_iou_{name}_output"], case.arrays[f"in_iou_{name}_target"]
    rows = []
    for label in range(classes):
        truth = np.where(target == 255, 255, target == label)
        counts = count(output == label, truth)
        rows.append([counts.fg_inter.sum(), counts.fg_union.sum(), counts.fg_true.sum()])
    return torch.tensor(rows, dtype=torch.float32).T


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("binary", 2),
        ("all_ignore", 2),
        ("no_fg_target", 2),
        ("no_fg_anywhere", 2),
        ("five_class", 5),
        ("output_has_label_K", 2),
    ],
)
def test_intersections_and_unions(case, name, classes):
    case.assert_close(counted(case, name, classes), f"iou_{name}_torch")


def test_background_counts_are_those_of_class_zero(case):
    ours = count(case.arrays["in_iou_binary_output"], case.arrays["in_iou_binary_target"])
    expected = case.output("iou_binary_numpy")
    assert [ours.bg_inter.sum(), ours.fg_inter.sum()] == expected[0].tolist()
    assert [ours.bg_union.sum(), ours.fg_union.sum()] == expected[1].tolist()


def test_region_iou_is_the_ratio_of_the_counts(case):
    output = case.input("iou_binary_output").flatten(0, 1).unsqueeze(0)
    target = case.input("iou_binary_target").flatten(0, 1).unsqueeze(0)
    expected = case.output("iou_binary_torch")
    ratios = expected[0] / expected[1]
    torch.testing.assert_close(region_iou(output, target, "foreground"), ratios[1:])
    torch.testing.assert_close(region_iou(output, target, "mean"), ratios.mean().reshape(1))
