"""A published number never stands beside another model's figure; the models are written from the papers."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from fewseg.engine.results import as_json
from fewseg.recipes.registry import RECIPES, recipe
from fewseg.reports.frame import load_results
from fewseg.reports.published import layouts

RESULTS = Path(__file__).parents[2] / "results"

SGM = {"type": "SCLCANetConfig", "vectors": ["primary", "auxiliary"], "losses": ["first", "second"]}
"""SCL, Sec. 4.1: v_pri and v_aux guide the query, L_s1 and L_s2 train the support path."""
SDAANET = {
    "type": "SDAANetConfig",
    "attention": "SupervisedAttention",
    "gate": "MeanGate",
    "distillation": "SeparateTeachers",
}
"""SD-AANet, Fig. 2: SAAM and SDPM; of one shot a teacher a shot is Eq. 5."""
SRPNET = {"type": "SRPNetConfig", "metric": "Fidelity", "support_weight": 1.0}
"""SRPNet, Sec. 3.3 and Eq. 12: fidelity, and SRP's loss."""
CANET, PFENET = {"type": "CANetConfig"}, {"type": "PFENetConfig"}

MODELS = {
    "CANet": CANET,
    "baseline": CANET,  # SCL, Table 4
    "average": CANET,
    "CGM": CANET,
    "ASGNet": {"type": "ASGNetConfig"},
    "AMP": {"type": "AMPConfig", "metric": "Cosine"},
    "PGNet": {"type": "PGNetConfig"},
    "CRNet": {"type": "CRNetConfig"},
    "DAN": {"type": "DANConfig"},
    "RPMMs": {"type": "RPMMsConfig"},
    "PPNet": {"type": "PPNetConfig"},
    "SG-One": {"type": "SGOneConfig"},
    "SG-one": {"type": "SGOneConfig"},
    "PANet": {"type": "PANetConfig", "metric": "Cosine", "alignment": "PrototypeAlignment"},
    "PFENet": PFENET,
    "PFENet (473)": PFENET,
    "SCL": {"type": "SCLPFENetConfig", "vectors": SGM["vectors"], "losses": SGM["losses"]},
    "SCL (PFENet)": {"type": "SCLPFENetConfig", "vectors": SGM["vectors"], "losses": SGM["losses"]},
    "SCL (CANet)": SGM,
    "SGM": SGM,
    "SGM + average": SGM,
    "SGM + CGM": SGM,
    "v_s": SGM | {"vectors": ["initial"], "losses": ["first"]},  # v_s has no second support pass to train
    "v_pri": SGM | {"vectors": ["primary"]},
    "v_aux": SGM | {"vectors": ["auxiliary"]},
    "v_pri + v_aux": SGM,
    "v_s + v_pri + v_aux": SGM | {"vectors": ["initial", "primary", "auxiliary"]},
    "L_ce^s1": SGM | {"losses": ["first"]},
    "L_ce^s2": SGM | {"losses": ["second"]},
    "L_ce^s1 + L_ce^s2": SGM,
    "Baseline": PFENET,  # SD-AANet, Sec. IV-A2: PFENet
    "Baseline (473)": PFENET,
    "Baseline + SAAM": SDAANET | {"gate": "NoGate", "distillation": "NoDistillation"},
    "Baseline + SDPM": SDAANET | {"attention": "NoAttention"},
    "SD-AANet": SDAANET,
    "SD-AANet (473)": SDAANET,
    "Single-scale Inference": SDAANET,
    "Multi-scale Inference": SDAANET,
    "Integral Strategy": SDAANET | {"distillation": "IntegralTeacher"},
    "Separate Strategy": SDAANET,  # the 5-shot figure of Table I: with SAAM
    "Cos": SRPNET | {"metric": "Cosine", "support_weight": 0.0},
    "F": SRPNET | {"support_weight": 0.0},
    "F + IQI": SRPNET | {"support_weight": 0.0},
    "F (sup)": SRPNET | {"support_weight": 0.0},
    "F + SRP": SRPNET,
    "F + SRP + IQI": SRPNET,
    "F + SRP (sup)": SRPNET,
    "SRPNet": SRPNET,
}

FUSIONS = {  # of five shots
    "CANet": "attention",  # SCL, Sec. 5.1
    "average": "average",
    "SGM + average": "average",
    "CGM": "cross-guided",
    "SCL (CANet)": "cross-guided",
    "SCL (PFENet)": "cross-guided",
    "PPNet": "all",
    "PGNet": "all",
    "RPMMs": "all",
    "DAN": "all",
    "ASGNet": "all",
}
ITERATED = {"F + IQI", "SRPNet"}


def model_of(method):
    """What the table above names of a method's config in JSON."""
    flat = {**method, **method.get("self_guided", {}), "type": method["type"]}
    names = {name for model in MODELS.values() for name in model}
    parts = {name: value for name, value in flat.items() if name in names}
    return {name: part["type"] if isinstance(part, Mapping) else part for name, part in parts.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_a_printed_row_is_of_recipes_of_its_own_model_alone(name):
    chosen = recipe(name)
    method = model_of(as_json(chosen.method))
    for row in chosen.variant.printed:
        assert method == MODELS[row.row], row
        assert (row.on == "support") == row.row.endswith("(sup)")
        assert (row.fusion == "iterative") == (row.row in ITERATED)
        if 5 in (row.shots or (5,)) and row.row not in ITERATED:
            assert row.fusion == FUSIONS.get(row.row, row.fusion)
        assert row.output_sizes == ((321, 473) if row.row == "Multi-scale Inference" else ())


def test_a_row_of_a_papers_table_shows_results_of_its_own_model_alone():
    places = [
        (row.name, place.split(" / ")[2])
        for table in layouts()
        for section in table.sections
        for row in section.rows
        for place in row.ours
    ]
    assert len(places) > 60
    assert [pair for pair in places if MODELS[pair[0]] != MODELS[pair[1]]] == []


def test_committed_results_stand_beside_numbers_of_their_own_model_alone():
    found = load_results(RESULTS)
    beside = found.frame[found.frame.row != ""]
    assert len(beside) > 80
    for key, row in beside.row.items():
        assert model_of(found.runs[key].config["method"]) == MODELS[row], key
