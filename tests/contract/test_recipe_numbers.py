"""Every number of every paper recipe, against a table written from the papers, not from the code.

Sources of a value are beside it: a section of the paper; "METHODS" for the project's notes of what the
released code does; "ours" where neither paper nor released code gives a value, and the recipe's docstring
says so.
"""

from dataclasses import asdict, fields

import pytest

from fewseg.engine.train_config import TrainConfig
from fewseg.methods.canet import Refinement
from fewseg.methods.fusion import IterativeInference
from fewseg.recipes.datasets import coco, coco_contiguous, coco_tested_on_voc, coco_three_parts, pascal
from fewseg.recipes.registry import RECIPES, recipe

PFENET_VIEW = {
    "size": 473,  # METHODS 1: 473 x 473 crops
    "scale": (0.9, 1.1),  # METHODS 1
    "rotate": 10.0,  # METHODS 1
    "rotate_probability": 0.5,  # METHODS, corrections: released
    "flip": 0.5,  # METHODS 1: horizontal flip
    "blur": 0.5,  # METHODS 1
    "resize": "none",
}
PFENET_COCO_VIEW = PFENET_VIEW | {"size": 641, "scale": (0.8, 1.25)}  # METHODS, corrections; METHODS 1
CANET_VIEW = {
    "size": 321,  # METHODS 2, training
    "scale": (1.0, 1.5),  # ours
    "rotate": 0.0,
    "rotate_probability": 1.0,
    "flip": 0.5,  # ours
    "blur": 0.0,
    "resize": "letterbox",  # ours
}
SDAANET_VIEW = {
    "size": 321,  # SD-AANet, Sec. IV-A2
    "scale": (1.0, 1.0),  # the same: no scaling is named
    "rotate": 10.0,  # the same: -10 to 10 degrees
    "rotate_probability": 0.5,  # METHODS, corrections: released
    "flip": 0.5,  # the same: mirror
    "blur": 0.0,
    "resize": "none",
}
PROTOTYPE_VIEW = {
    "size": 417,  # SRPNet, Sec. 4.2; PANet, METHODS 4
    "scale": (1.0, 1.0),  # SRPNet, Sec. 4.2: resized only
    "rotate": 0.0,
    "rotate_probability": 1.0,
    "flip": 0.5,  # SRPNet, Sec. 4.2
    "blur": 0.0,
    "resize": "stretch",  # METHODS, corrections: resized to 417 x 417
}

POLY = {
    "type": "SGD",
    "lr": 2.5e-3,  # SCL, Sec. 5.1; SD-AANet, Sec. IV-A2
    "momentum": 0.9,  # SD-AANet, Sec. IV-A2; METHODS 1
    "weight_decay": 1e-4,  # SCL, Sec. 5.1; SD-AANet, Sec. IV-A2
    "power": 0.9,  # SD-AANet, Sec. IV-A2; METHODS 1
}
# SCL, Sec. 5.1: 2.5e-4 and 5e-4; METHODS 2: new layers 10 times as fast; METHODS, corrections: constant rate.
CANET_SGD = POLY | {"lr": 2.5e-3, "weight_decay": 5e-4, "power": 0.0}
STEPS = {
    "type": "StepSGD",  # SRPNet, Sec. 4.2; PANet, METHODS 4
    "lr": 1e-3,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "every": 10_000,
    "factor": 0.1,
}

NOTHING_MORE = {"ways": 1, "cached_views": 0, "drop_novel": False, "held_out": (), "validate_every": 0}
NOTHING_MORE |= {"clip": None, "precision": "32-true", "seed": 0, "train_list": None}
PFENET_TRAINING = NOTHING_MORE | {
    "epochs": 200,  # SCL, Sec. 5.1; SD-AANet, Sec. IV-A2
    "batch": 4,  # the same
    "shots": 1,
    "queries": "epochs",  # METHODS, corrections (issue 15, 16): released
    "class_first": 0.0,  # METHODS 7: query from the list, then a class in it
    "min_area": 2 * 32 * 32,  # METHODS 7
    "view": PFENET_VIEW,
    "optimiser": POLY,
}
COCO_SCHEDULE = {"epochs": 50, "batch": 8}  # METHODS 1; SD-AANet, Sec. IV-A2
PFENET_COCO_TRAINING = PFENET_TRAINING | COCO_SCHEDULE
PFENET_COCO_TRAINING |= {"view": PFENET_COCO_VIEW, "optimiser": POLY | {"lr": 5e-3}}  # METHODS 1
CANET_TRAINING = PFENET_TRAINING | {"view": CANET_VIEW, "optimiser": CANET_SGD}
SDAANET_TRAINING = PFENET_TRAINING | {"view": SDAANET_VIEW}
SDAANET_COCO_TRAINING = SDAANET_TRAINING | COCO_SCHEDULE | {"optimiser": POLY | {"lr": 5e-4}}  # Sec. IV-A2
SRPNET_TRAINING = NOTHING_MORE | {
    "epochs": None,
    "steps": 30_000,  # SRPNet, Sec. 4.2
    "batch": 1,  # the same
    "shots": 1,
    "queries": "independent",
    "class_first": 1.0,  # METHODS 7: others draw the class first
    "min_area": 1,  # SRPNet, Sec. 3.1: one pixel
    "view": PROTOTYPE_VIEW,
    "optimiser": STEPS,
}
PANET_TRAINING = SRPNET_TRAINING | {"train_list": "trainaug"}  # METHODS, corrections: 10 582 images
FIVE = {"shots": 5}  # SD-AANet, Sec. III, K-shot training; CANet's attention

SCL = {
    "name": "paper-scl",
    "episodes": 1000,  # METHODS 7
    "seeds": (0, 1, 2, 3, 4),  # SCL, Sec. 5.1: 5 runs
    "query_order": "list",  # METHODS 7
    "distinct_supports": True,  # METHODS 7
    "min_area": 2 * 32 * 32,  # METHODS 7
    "label_size": "original",  # METHODS 7
    "drop_novel_training_images": False,  # METHODS 7
    "aspect": "kept",
    "backbone_bn": "eval",  # METHODS 0
    "coco_split": "B",  # METHODS 7
    "fusion": "any",
}
SRPNET = SCL | {"name": "paper-srpnet", "query_order": "class_first", "min_area": 1, "aspect": "stretched"}
SDAANET = SCL | {"name": "paper-sdaanet", "fusion": "mean"}  # Sec. IV-A: 1000 pairs, 5 rounds
SDAANET_COCO = SDAANET | {"episodes": 4000}  # the same
SDAANET_473 = SDAANET_COCO | {"name": "paper-sdaanet-473", "label_size": 473}  # Table II, dagger
PFENET_473 = SDAANET_473 | {"name": "pfenet-473", "episodes": 20_000, "seeds": (0,)}  # METHODS 7

PFENET = {
    "channels": 256,  # SCL, Sec. 5.1
    "scales": (60, 30, 15, 8),  # METHODS 1
    "mid_dropout": 0.5,  # METHODS 0
    "head_dropout": 0.1,  # METHODS 1
    "deep_weight": 1.0,  # METHODS 1
}
PFENET_COCO = PFENET | {"scales": (1.0, 0.5, 0.25, 0.125)}  # METHODS, corrections
CANET = {
    "channels": 256,  # SCL, Sec. 5.1
    "mid_dropout": 0.5,  # METHODS 0
    "head_dropout": 0.5,  # METHODS 0
    "history_reset": 0.7,  # METHODS 3
    "aspp_dropout": 0.5,  # METHODS, corrections: released
    "initialisation": "normal",  # METHODS, corrections: N(0, 0.01), released
    # METHODS 3: 4 refinements; corrections: 0.7, 1 and 1.3 of the image's own size, released
    "refinement": Refinement(iterations=4, stop_early=False, image_scales=(0.7, 1.0, 1.3)),
}
SD = PFENET | {"distillation_weight": 50.0, "attention_weight": 0.5}  # SD-AANet, Sec. IV-A2
PANET = {"alpha": 20.0}  # METHODS 4
FULL = {
    "channels": 512,  # SRPNet, Sec. 3.2
    "grid": "largest",  # the same: all maps are up-sampled
    "alpha": 20.0,  # METHODS 5
    "support_weight": 1.0,  # METHODS 5
    "fusion": IterativeInference(steps=5, rate=0.003, guard=False),  # Eq. 12 as printed, N = 5; eta is ours
}
# RePRI, Sec. 4: tau = 20, 50 steps of 0.025, pi estimated again at step 10, weights 1 / K
REPRI = {"temperature": 20.0, "rate": 0.025, "steps": 50, "update_at": 10, "query_weight": None}
# ASGNet, Sec. 4.1 and 5.1: one prototype for 100 cells, 5 at most
ASGNET = {"channels": 256, "region_cells": 100, "regions": 5, "iterations": 10, "scales": (60, 30, 15, 8)}
ASGNET_COCO = ASGNET | {"scales": (1.0, 0.5, 0.25, 0.125)}
SDAANET_ANY = SDAANET | {"fusion": "any"}
PMMS = {"channels": 256, "components": 3, "kappa": 20.0, "iterations": 10}  # PMMs, Sec. 3.1 and 5.1
PPNET = {"parts": 5, "context": 0.8, "alpha": 20.0}  # PPNet, Sec. 5
NO_SRP = FULL | {"support_weight": 0.0}  # SRPNet, Table 1

HSNET_VIEW = PROTOTYPE_VIEW | {"size": 401, "flip": 0.0}  # HSNet, Sec. 5: 400 px; no augmentation is named
HSNET_TRAINING = NOTHING_MORE | {
    "epochs": None,
    "steps": 20_000,  # ours
    "batch": 20,  # HSNet, Sec. 5
    "shots": 1,
    "queries": "independent",
    "class_first": 1.0,
    "min_area": 2 * 32 * 32,  # METHODS 7
    "view": HSNET_VIEW,
    # HSNet, Sec. 5: Adam at a constant 1e-3
    "optimiser": {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.0, "power": 0.0, "warmup": 0},
}
HSNET = SCL | {"name": "hsnet", "seeds": (0,), "distinct_supports": False, "label_size": "network"}
HSNET |= {"aspect": "stretched"}  # METHODS 7 and data/protocols.py
HSNET_COCO = HSNET | {"query_order": "class_first"}

SIZES = {"paper-srpnet": 417, "hsnet": 1025}
TABLE = {
    "pascal_pfenet_resnet50": (PFENET_TRAINING, SCL, PFENET, pascal),
    "pascal_scl_pfenet_resnet50": (PFENET_TRAINING, SCL, PFENET, pascal),
    "pascal_canet_resnet50": (CANET_TRAINING, SCL, CANET, pascal),
    "pascal_canet_attention_resnet50": (CANET_TRAINING | FIVE, SCL, CANET, pascal),
    "pascal_scl_canet_resnet50": (CANET_TRAINING, SCL, CANET, pascal),
    **{
        f"pascal_scl_canet_{part}_resnet50": (CANET_TRAINING, SCL, CANET, pascal)
        for part in ("initial", "primary", "auxiliary", "all_vectors", "first_loss", "second_loss")
    },
    "pascal_panet_vgg16": (PANET_TRAINING, SRPNET, PANET, pascal),
    "pascal_panet_vgg16_no_alignment": (PANET_TRAINING, SRPNET, PANET, pascal),
    "pascal_panet_resnet50": (PANET_TRAINING, SRPNET, PANET, pascal),
    "coco_panet_vgg16": (SRPNET_TRAINING, SRPNET | {"coco_split": "A"}, PANET, coco_contiguous),
    "pascal_srpnet_cos_resnet50": (SRPNET_TRAINING, SRPNET, NO_SRP, pascal),
    "pascal_srpnet_f_resnet50": (SRPNET_TRAINING, SRPNET, NO_SRP, pascal),
    "pascal_srpnet_resnet50": (SRPNET_TRAINING, SRPNET, FULL, pascal),
    "coco_srpnet_resnet50": (SRPNET_TRAINING, SRPNET, FULL, coco_three_parts),
    "coco_20i_srpnet_resnet50": (SRPNET_TRAINING, SRPNET, FULL, coco),
    "pascal_matcher_resnet50": (None, SRPNET, PANET, pascal),
    "coco_to_voc_matcher_resnet50": (None, SRPNET, PANET, coco_tested_on_voc),
    "pascal_sgone_vgg16": (SRPNET_TRAINING, SRPNET, {"channels": 128}, pascal),
    "pascal_hsnet_resnet50": (HSNET_TRAINING, HSNET, {"channels": 128}, pascal),
    "coco_hsnet_resnet50": (HSNET_TRAINING | {"batch": 40}, HSNET_COCO, {"channels": 128}, coco),
    "coco_insid3_dinov3_large": (
        None,
        HSNET_COCO,
        {"rank": 16, "clusters": 32, "threshold": 0.5},
        coco,
    ),  # ours
    "pascal_repri_resnet50": (None, SRPNET, REPRI, pascal),
    "pascal_amp_vgg16": (None, SRPNET, {"levels": ("layer2", "layer3", "layer4")}, pascal),  # AMP, Fig. 2
    "pascal_asgnet_resnet101": (PFENET_TRAINING, SDAANET_ANY, ASGNET, pascal),
    "coco_asgnet_resnet50": (PFENET_COCO_TRAINING, SDAANET_COCO | {"fusion": "any"}, ASGNET_COCO, coco),
    "pascal_pgnet_resnet50": (
        CANET_TRAINING,
        SCL,
        {"channels": 256, "scales": (1.0, 0.5, 0.25)},
        pascal,
    ),  # ours
    **{
        f"pascal_bam{part}_resnet50": (PFENET_TRAINING | {"drop_novel": True}, SCL, PFENET, pascal)
        for part in ("", "_base")
    },
    # history: CANet's
    "pascal_crnet_resnet50": (CANET_TRAINING, SCL, {"channels": 256, "history_reset": 0.7}, pascal),
    "pascal_dan_resnet101": (CANET_TRAINING, SCL, {"channels": 256, "democracy": 0.5}, pascal),  # ours
    "coco_dan_resnet101": (CANET_TRAINING, SCL, {"channels": 256, "democracy": 0.5}, coco),
    "pascal_pmms_resnet50": (CANET_TRAINING, SCL, PMMS, pascal),
    "pascal_rpmms_resnet50": (CANET_TRAINING, SCL, PMMS, pascal),
    "coco_rpmms_resnet50": (CANET_TRAINING, SDAANET_COCO | {"fusion": "any"}, PMMS, coco),
    "pascal_ppnet_resnet50": (SRPNET_TRAINING, SRPNET, PPNET, pascal),
    "coco_ppnet_resnet50": (SRPNET_TRAINING, SRPNET, PPNET, coco),
    "pascal_sdaanet_baseline_resnet50": (SDAANET_TRAINING, SDAANET, PFENET, pascal),
    **{
        f"pascal_sdaanet{part}_resnet50": (SDAANET_TRAINING, SDAANET, SD, pascal)
        for part in ("", "_saam", "_sdpm")
    },
    **{
        f"pascal_sdaanet_{part}_resnet50": (SDAANET_TRAINING | FIVE, SDAANET, SD, pascal)
        for part in ("integral", "separate")
    },
    "coco_pfenet_resnet101": (PFENET_COCO_TRAINING, SCL, PFENET_COCO, coco),
    "coco_pfenet_473_resnet101": (PFENET_COCO_TRAINING, PFENET_473, PFENET_COCO, coco),
    "coco_scl_pfenet_resnet101": (PFENET_COCO_TRAINING, SCL, PFENET_COCO, coco),
    **{
        f"coco_sdaanet{part}_resnet101": (SDAANET_COCO_TRAINING | more, protocol, method, coco)
        for suffix, protocol in (("", SDAANET_COCO), ("_473", SDAANET_473))
        for part, more, method in (
            (f"_baseline{suffix}", {}, PFENET),
            (suffix, {}, SD),
            (f"_separate{suffix}", FIVE, SD),
        )
    },
}
NOT_NUMBERS_OF_A_PAPER = {"save_every", "workers", "validation_episodes"}


def test_every_paper_recipe_is_in_the_table():
    published = {name for name in RECIPES if name.startswith(("pascal_", "coco_"))}
    assert set(TABLE) == {name for name in published if not name.startswith("coco_mini_")}


@pytest.mark.parametrize("name", TABLE)
def test_every_number_of_a_recipe_is_the_papers(name):
    training, protocol, method, data = TABLE[name]
    made = recipe(name)
    assert made.data is data
    assert asdict(made.protocol) == protocol
    assert {key: getattr(made.method, key) for key in method} == method
    if training is None:
        assert made.train is None
        assert made.size == SIZES[protocol["name"]]
        return
    assert made.size == training["view"]["size"]
    found = {
        f.name: getattr(made.train, f.name)
        for f in fields(TrainConfig)
        if f.name not in NOT_NUMBERS_OF_A_PAPER and (f.name != "steps" or made.train.epochs is None)
    }
    found["view"] = asdict(made.train.view)
    found["optimiser"] = {"type": type(made.train.optimiser).__name__} | asdict(made.train.optimiser)
    assert found == training
