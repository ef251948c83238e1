"""SD-AANet: self-distillation embedded supervised affinity attention (Zhao et al. 2022)."""

from fewseg.methods.sdaanet.attention import NoAttention, SupervisedAttention
from fewseg.methods.sdaanet.gate import CompoundedGate, MeanGate, NoGate
from fewseg.methods.sdaanet.model import SDAANet, SDAANetConfig
from fewseg.methods.sdaanet.teachers import (
    IntegralTeacher,
    NoDistillation,
    PrototypeTeacher,
    SeparateTeachers,
)

__all__ = [
    "CompoundedGate",
    "IntegralTeacher",
    "MeanGate",
    "NoAttention",
    "NoDistillation",
    "NoGate",
    "PrototypeTeacher",
    "SDAANet",
    "SDAANetConfig",
    "SeparateTeachers",
    "SupervisedAttention",
]
