"""Every number of every paper recipe, against a table written from the papers, not from the code.

Sources of a value are beside it: a section of the paper; "METHODS" for the project's notes of what the
released code does; "ours" where neither paper nor released code gives a value, and the recipe's docstring
says so.
"""

from dataclasses import asdict, fields, is_dataclass

import pytest

from fewseg.engine.train_config import TrainConfig
from fewseg.recipes.datasets import (
    coco,
    coco_contiguous,
    coco_tested_on_voc,
    coco_three_parts,
    fss1000,
    pascal,
    voc_tested_on_coco,
)
from fewseg.recipes.recipe import Recipe
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
NOTHING_MORE |= {"novel_pixels": "background"}  # METHODS 7
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
    "novel_pixels": "background",  # METHODS 7
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


def part(type, **values):
    """A config as the tables have it: its class by name and every field, but for ``kind``, a second name."""
    return {"type": type} | values


# Batch-norm of PANet and SRPNet: their papers are silent.
BACKBONE = part(
    "BackboneConfig",
    name="resnet50",  # METHODS 0: PASCAL
    weights="imagenet",  # METHODS 0
    levels=("layer2", "layer3", "layer4"),  # METHODS 0, and layer4 for the prior mask (METHODS 1)
    trainable=False,  # METHODS 0: frozen
    bn="eval",  # METHODS 0: never "train" by default
    output_stride=8,  # METHODS 0
    # the papers are silent, down to ``ceil_pool``: the network that the ImageNet weights belong to
    first_block_dilation="previous",
    stride_on_1x1=False,
    bn_eps=None,
    seed=0,
    shape=None,
    last_relu=True,
    ceil_pool=False,
)
RESNET101 = BACKBONE | {"name": "resnet101"}  # METHODS 0: COCO
NO_LAYER4 = BACKBONE | {"levels": ("layer2", "layer3")}
LAYER4 = BACKBONE | {"levels": ("layer4",)}
END_TO_END = LAYER4 | {"trainable": True}  # METHODS 0
VGG16 = END_TO_END | {"name": "vgg16", "last_relu": False}  # METHODS 4; the paper is silent on the last ReLU

MEAN = part("MeanVector")  # METHODS 0, K shots
AVERAGE = part("ScoreAverage")  # SCL, Table 4, "Avg."
ALL = part("AllVectors")
CROSS = part(
    "CrossGuided",
    iou="foreground",  # METHODS 2: the foreground's
    path="query",  # SCL, Eq. 15: G, the 1-shot model
    divisor=None,  # SCL, Eq. 17: K
)
GUARDED = part("IterativeInference", steps=5, rate=0.003, guard=True)
AS_PRINTED = GUARDED | {"guard": False}  # SRPNet, Eq. 12; N = 5 (METHODS 5); the paper is silent on eta: ours

SMALL = {"small_objects": "touched"}  # the papers are silent: ours (issue 15, 5)
DECODER = SMALL | {
    "backbone": BACKBONE,
    "channels": 256,  # SCL, Sec. 5.1
    "mid_levels": ("layer3", "layer2"),  # METHODS 0
    "scales": (60, 30, 15, 8),  # METHODS 1
    "rounding": "down",  # METHODS, corrections: truncates
    "mid_dropout": 0.5,  # METHODS 0
    "head_dropout": 0.1,  # METHODS 1
    "deep_weight": 1.0,  # METHODS 1
}
PRIOR = part("PriorMap", level="layer4", masked_input="layer3")  # METHODS 1
PFENET = part("PFENetConfig", **DECODER, prior=PRIOR, fusion=MEAN)
ON_COCO = {"backbone": RESNET101, "scales": (1.0, 0.5, 0.25, 0.125)}  # METHODS, corrections
PFENET_COCO = PFENET | ON_COCO
SGM = part(
    "SelfGuided",
    vectors=("primary", "auxiliary"),  # SCL, Sec. 4.2
    losses=("first", "second"),  # SCL, Eq. 14
    second_pass="paper",  # METHODS 2
    threshold=0.5,  # the paper is silent; METHODS 0: a threshold, never truncation
)
SCL_PFENET = PFENET | part("SCLPFENetConfig", self_guided=SGM, fusion=CROSS)
CANET = part(
    "CANetConfig",
    **SMALL,
    backbone=NO_LAYER4,
    channels=256,  # SCL, Sec. 5.1
    mid_levels=("layer2", "layer3"),  # METHODS 0
    mid_dropout=0.5,  # METHODS 0
    head_dropout=0.5,  # SCL is silent: CANet's
    history_reset=0.7,  # METHODS 3
    aspp_dropout=0.5,  # METHODS, corrections: released
    initialisation="normal",  # METHODS, corrections: N(0, 0.01), released
    # METHODS 3: 4 refinements, an early stop is an option; corrections: 0.7, 1, 1.3 of the own size, released
    refinement=part("Refinement", iterations=4, stop_early=False, image_scales=(0.7, 1.0, 1.3)),
    cross_iou_align_corners=True,  # the paper is silent; METHODS 0: masks are resized with aligned corners
    fusion=AVERAGE,
)
ATTENDED = CANET | {"fusion": part("ShotAttention")}  # METHODS 3
SCL_CANET = CANET | part("SCLCANetConfig", self_guided=SGM, fusion=CROSS)
SD = PFENET | part(
    "SDAANetConfig",
    gate=part("MeanGate", reduction=4),  # METHODS 6, Eq. 3
    distillation=part(
        "SeparateTeachers", detach=False
    ),  # METHODS 6; METHODS, corrections: into the teacher too
    attention=part("SupervisedAttention", dropout=0.1),  # METHODS, corrections: released
    distillation_weight=50.0,  # SD-AANet, Sec. IV-A2
    attention_weight=0.5,  # the same
)
SD_SAAM = SD | {"gate": part("NoGate"), "distillation": part("NoDistillation")}  # SD-AANet, Table III
SD_SDPM = SD | {"attention": part("NoAttention")}  # the same
SD_INTEGRAL = SD | {"distillation": part("IntegralTeacher", detach=False)}  # SD-AANet, Table V
COSINE, FIDELITY = part("Cosine"), part("Fidelity")
PANET = part(
    "PANetConfig",
    backbone=VGG16,
    level="layer4",  # METHODS 4: the last block
    metric=COSINE,  # METHODS 4
    alpha=20.0,  # METHODS 4
    alignment=part("PrototypeAlignment", weight=1.0),  # METHODS 4
    align_corners=True,  # the three papers are silent: as everything else is resized here
    fusion=MEAN,
)
EVERY_BLOCK = ("stem", "layer1", "layer2", "layer3", "layer4")  # SRPNet, Sec. 3.2: all blocks
FULL = part(
    "SRPNetConfig",
    backbone=END_TO_END | {"levels": EVERY_BLOCK},
    levels=EVERY_BLOCK,
    channels=512,  # SRPNet, Sec. 3.2
    grid="largest",  # the same: all maps are up-sampled
    metric=FIDELITY,  # SRPNet, Eq. 5 and 6
    alpha=20.0,  # METHODS 5
    support_weight=1.0,  # METHODS 5
    query_weight=1.0,  # METHODS 5
    fusion=AS_PRINTED,
)
NO_SRP = FULL | {"support_weight": 0.0}  # SRPNet, Table 1
COS = NO_SRP | {"metric": COSINE}  # SRPNet, Table 1

# From here on methods whose papers are not among the three: beside a value their section, where it is known;
# METHODS and the three papers are silent on the rest, which is as the method's page has it.
MATCHER = part(
    "MatcherConfig",
    backbone=NO_LAYER4,
    levels=("layer3", "layer2"),
    metric=COSINE,
    alpha=20.0,
    fusion=MEAN,
)
SGONE = part(
    "SGOneConfig",
    **SMALL,
    backbone=VGG16 | {"levels": ("layer2",), "last_relu": True},
    level="layer2",
    channels=128,
    fusion=MEAN,
)
RESNET50_BLOCKS = tuple(
    f"layer{stage}.{block}" for stage, blocks in ((2, 4), (3, 6), (4, 3)) for block in range(blocks)
)
HSNET_METHOD = part(
    "HSNetConfig",
    **SMALL,
    backbone=BACKBONE | {"levels": RESNET50_BLOCKS, "output_stride": 32},
    channels=128,
    fusion=part("Vote", threshold=0.5),  # HSNet, Sec. 4.4
)
# RePRI, Sec. 4: tau = 20, 50 steps of 0.025, pi estimated again at step 10, weights 1 / K
REPRI = part("RePRIConfig", backbone=LAYER4, level="layer4", temperature=20.0, rate=0.025, steps=50)
REPRI |= {"update_at": 10, "query_weight": None, "fusion": part("JointFit")}
AMP_LEVELS = {"levels": ("layer2", "layer3", "layer4")}  # AMP, Fig. 2
AMP = part("AMPConfig", backbone=BACKBONE | {"name": "vgg16"} | AMP_LEVELS, **AMP_LEVELS)
AMP |= {"metric": COSINE, "alpha": 20.0, "fusion": MEAN}
# ASGNet, Sec. 4.1 and 5.1: one prototype for 100 cells, 5 at most
ASGNET = part("ASGNetConfig", **DECODER, region_cells=100, regions=5, iterations=10, spread=10.0, fusion=ALL)
ASGNET_COCO = ASGNET | ON_COCO | {"backbone": NO_LAYER4}
ASGNET |= {"backbone": NO_LAYER4 | {"name": "resnet101"}}
CANETS = SMALL | {
    key: CANET[key] for key in ("backbone", "channels", "mid_levels", "mid_dropout", "head_dropout")
}
PMMS = part("PMMsConfig", **CANETS, components=3, kappa=20.0, iterations=10, fusion=ALL)  # Sec. 3.1 and 5.1
RPMMS = PMMS | part("RPMMsConfig", earlier=(1, 2), deep_weight=1.0)
PGNET = part("PGNetConfig", **CANETS, scales=(1.0, 0.5, 0.25), fusion=ALL)
DAN = part("DANConfig", **CANETS | {"backbone": RESNET101}, democracy=0.5, fusion=ALL)
DAN |= {"mid_levels": ("layer2", "layer3", "layer4")}
CRNET = CANET | part("CRNetConfig", both_weight=1.0, aspp_dropout=0.0, initialisation="torch")
CRNET |= {"refinement": CANET["refinement"] | {"image_scales": ()}}
# PPNet, Sec. 5
PPNET = part("PPNetConfig", backbone=END_TO_END, level="layer4", parts=5, context=0.8, iterations=10)
PPNET |= {"alpha": 20.0, "fusion": ALL}
INSID3 = part("INSID3Config", backbone=LAYER4 | {"name": "vit_large_patch16_dinov3"}, level="layer4")
INSID3 |= {"rank": 16, "clusters": 32, "threshold": 0.5, "alpha": 20.0, "fusion": ALL}  # ours
BAM = PFENET | part(
    "BAMConfig", stage="meta", base=None, classes=20, base_level="layer4", scene_level="layer2"
)
BAM |= {"meta_weight": 1.0, "fusion": ALL}
BAM_BASE = BAM | {"stage": "base"}


def line(shots, fusion=MEAN, **other):
    """A row of a result table."""
    plain = {"ways": 1, "on": "query", "sizes": (), "output_sizes": ()}
    return part("Evaluation", **plain | other, shots=shots, fusion=fusion)


def both(fusion):
    """One shot and five, as every table has them."""
    return (line(1, fusion), line(5, fusion))


MEANS = both(MEAN)
MEANS_1, MEANS_5 = ((row,) for row in MEANS)
ALLS, FITS, VOTES = both(ALL), both(part("JointFit")), both(HSNET_METHOD["fusion"])
AVERAGES = both(AVERAGE)
CROSS_GUIDED = (*AVERAGES, line(5, CROSS))  # SCL, Table 4
ONE_AVERAGE = (line(1, AVERAGE),)  # SCL, Tables 5 and 6
TWO_WAYS = (*MEANS, line(1, ways=2), line(5, ways=2))  # METHODS 4: N-way K-shot
ITERATES = (*MEANS, *both(AS_PRINTED), line(1, on="support"))  # SRPNet, Table 1: F, IQI, (sup)
MATCHES = (*MEANS, *both(GUARDED))  # ours
MULTI_SCALE = (line(1), line(1, output_sizes=(321, 473)))  # SD-AANet, Table IV; METHODS, corrections

SDAANET_ANY = SDAANET | {"fusion": "any"}
SDAANET_COCO_ANY = SDAANET_COCO | {"fusion": "any"}

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
ABLATIONS = {  # SCL, Tables 5 and 6
    "initial": {"vectors": ("initial",), "losses": ("first",)},
    "primary": {"vectors": ("primary",)},
    "auxiliary": {"vectors": ("auxiliary",)},
    "all_vectors": {"vectors": ("initial", "primary", "auxiliary")},
    "first_loss": {"losses": ("first",)},
    "second_loss": {"losses": ("second",)},
}
TABLE = {
    "pascal_pfenet_resnet50": (PFENET_TRAINING, SCL, PFENET, MEANS, pascal),
    "pascal_scl_pfenet_resnet50": (PFENET_TRAINING, SCL, SCL_PFENET, CROSS_GUIDED, pascal),
    "pascal_canet_resnet50": (CANET_TRAINING, SCL, CANET, CROSS_GUIDED, pascal),
    "pascal_canet_attention_resnet50": (
        CANET_TRAINING | FIVE,
        SCL,
        ATTENDED,
        (line(5, ATTENDED["fusion"]),),
        pascal,
    ),
    "pascal_scl_canet_resnet50": (CANET_TRAINING, SCL, SCL_CANET, CROSS_GUIDED, pascal),
    **{
        f"pascal_scl_canet_{name}_resnet50": (
            CANET_TRAINING,
            SCL,
            SCL_CANET | {"self_guided": SGM | parts},
            ONE_AVERAGE,
            pascal,
        )
        for name, parts in ABLATIONS.items()
    },
    "pascal_panet_vgg16": (PANET_TRAINING, SRPNET, PANET, TWO_WAYS, pascal),
    "pascal_panet_vgg16_no_alignment": (
        PANET_TRAINING,
        SRPNET,
        PANET | {"alignment": part("NoAlignment")},
        TWO_WAYS,
        pascal,
    ),
    "pascal_panet_resnet50": (PANET_TRAINING, SRPNET, PANET | {"backbone": END_TO_END}, TWO_WAYS, pascal),
    "coco_panet_vgg16": (SRPNET_TRAINING, SRPNET | {"coco_split": "A"}, PANET, MEANS, coco_contiguous),
    "pascal_srpnet_cos_resnet50": (SRPNET_TRAINING, SRPNET, COS, MEANS, pascal),
    "pascal_srpnet_f_resnet50": (SRPNET_TRAINING, SRPNET, NO_SRP, ITERATES, pascal),
    "pascal_srpnet_resnet50": (SRPNET_TRAINING, SRPNET, FULL, ITERATES, pascal),
    "coco_srpnet_resnet50": (SRPNET_TRAINING, SRPNET, FULL, ITERATES, coco_three_parts),
    "coco_20i_srpnet_resnet50": (SRPNET_TRAINING, SRPNET, FULL, ITERATES, coco),
    **{
        name: (None, SRPNET, MATCHER, MATCHES, data)
        for name, data in (
            ("pascal_matcher_resnet50", pascal),
            ("coco_to_voc_matcher_resnet50", coco_tested_on_voc),
            ("voc_to_coco_matcher_resnet50", voc_tested_on_coco),
            ("fss1000_matcher_resnet50", fss1000),
        )
    },
    "pascal_sgone_vgg16": (SRPNET_TRAINING, SRPNET, SGONE, MEANS, pascal),
    "pascal_hsnet_resnet50": (HSNET_TRAINING, HSNET, HSNET_METHOD, VOTES, pascal),
    "coco_hsnet_resnet50": (HSNET_TRAINING | {"batch": 40}, HSNET_COCO, HSNET_METHOD, VOTES, coco),
    "coco_insid3_dinov3_large": (None, HSNET_COCO, INSID3, ALLS, coco),
    "pascal_repri_resnet50": (None, SRPNET, REPRI, FITS, pascal),
    "pascal_amp_vgg16": (None, SRPNET, AMP, MEANS, pascal),
    "pascal_asgnet_resnet101": (PFENET_TRAINING, SDAANET_ANY, ASGNET, ALLS, pascal),
    "coco_asgnet_resnet50": (PFENET_COCO_TRAINING, SDAANET_COCO_ANY, ASGNET_COCO, ALLS, coco),
    "pascal_pgnet_resnet50": (CANET_TRAINING, SCL, PGNET, ALLS, pascal),
    "pascal_bam_resnet50": (PFENET_TRAINING | {"drop_novel": True}, SCL, BAM, ALLS, pascal),
    "pascal_bam_base_resnet50": (PFENET_TRAINING | {"drop_novel": True}, SCL, BAM_BASE, ALLS, pascal),
    "pascal_crnet_resnet50": (CANET_TRAINING, SCL, CRNET, AVERAGES, pascal),
    "pascal_dan_resnet101": (CANET_TRAINING, SCL, DAN, ALLS, pascal),
    "coco_dan_resnet101": (CANET_TRAINING, SCL, DAN, ALLS, coco),
    "pascal_pmms_resnet50": (CANET_TRAINING, SCL, PMMS, ALLS, pascal),
    "pascal_rpmms_resnet50": (CANET_TRAINING, SCL, RPMMS, ALLS, pascal),
    "coco_rpmms_resnet50": (CANET_TRAINING, SDAANET_COCO_ANY, RPMMS, ALLS, coco),
    "pascal_ppnet_resnet50": (SRPNET_TRAINING, SRPNET, PPNET, ALLS, pascal),
    "coco_ppnet_resnet50": (SRPNET_TRAINING, SRPNET, PPNET, ALLS, coco),
    "pascal_sdaanet_baseline_resnet50": (SDAANET_TRAINING, SDAANET, PFENET, MEANS, pascal),
    "pascal_sdaanet_saam_resnet50": (SDAANET_TRAINING, SDAANET, SD_SAAM, MEANS_1, pascal),
    "pascal_sdaanet_sdpm_resnet50": (SDAANET_TRAINING, SDAANET, SD_SDPM, MEANS_1, pascal),
    "pascal_sdaanet_resnet50": (SDAANET_TRAINING, SDAANET, SD, MULTI_SCALE, pascal),
    "pascal_sdaanet_integral_resnet50": (SDAANET_TRAINING | FIVE, SDAANET, SD_INTEGRAL, MEANS_5, pascal),
    "pascal_sdaanet_separate_resnet50": (SDAANET_TRAINING | FIVE, SDAANET, SD, MEANS_5, pascal),
    "coco_pfenet_resnet101": (PFENET_COCO_TRAINING, SCL, PFENET_COCO, MEANS, coco),
    "coco_pfenet_473_resnet101": (PFENET_COCO_TRAINING, PFENET_473, PFENET_COCO, MEANS, coco),
    "coco_scl_pfenet_resnet101": (PFENET_COCO_TRAINING, SCL, SCL_PFENET | ON_COCO, CROSS_GUIDED, coco),
    **{
        f"coco_sdaanet{name}{suffix}_resnet101": (
            SDAANET_COCO_TRAINING | more,
            protocol,
            method | {"backbone": RESNET101},
            lines,
            coco,
        )
        for suffix, protocol in (("", SDAANET_COCO), ("_473", SDAANET_473))
        for name, more, method, lines in (
            ("_baseline", {}, PFENET, MEANS),
            ("", {}, SD, MEANS_1),
            ("_separate", FIVE, SD, MEANS_5),
        )
    },
}
NOT_NUMBERS_OF_A_PAPER = {"save_every", "workers", "validation_episodes"}


def written_out(value):
    """A value as the tables have it: of a config every field, also of the configs in it."""
    if isinstance(value, tuple):
        return tuple(written_out(entry) for entry in value)
    if not is_dataclass(value):
        return value
    named = {f.name: written_out(getattr(value, f.name)) for f in fields(value) if f.name != "kind"}
    return part(type(value).__name__, **named)


def test_every_paper_recipe_is_in_the_table():
    prefixes = ("pascal_", "coco_", "fss1000_", "voc_to_coco_")
    published = {name for name in RECIPES if name.startswith(prefixes)}
    assert set(TABLE) == {name for name in published if not name.startswith("coco_mini_")}


def test_every_part_of_a_recipe_is_compared_with_the_table():
    compared = {"data", "train", "size", "protocol", "method", "evaluations"}
    assert {f.name for f in fields(Recipe)} - compared == {"name", "variant"}


@pytest.mark.parametrize("name", TABLE)
def test_every_number_of_a_recipe_is_the_papers(name):
    training, protocol, method, lines, data = TABLE[name]
    made = recipe(name)
    assert made.data is data
    assert asdict(made.protocol) == protocol
    assert written_out(made.method) == method
    assert written_out(made.evaluations) == lines
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
