"""Few-shot segmentation methods: one file a paper, one interface.

``create_method("pfenet", channels=64)`` builds one by its name; ``PFENetConfig(channels=64).build()`` is the
same. Importing a method's file registers it.
"""

from fewseg.methods.amp import AMP, AMPConfig
from fewseg.methods.asgnet import ASGNet, ASGNetConfig
from fewseg.methods.bam import BAM, BAMConfig
from fewseg.methods.base import FewShotSegmenter, MethodConfig
from fewseg.methods.canet import CANet, CANetConfig
from fewseg.methods.combined import Combined, CombinedConfig
from fewseg.methods.crnet import CRNet, CRNetConfig
from fewseg.methods.dan import DAN, DANConfig
from fewseg.methods.fitted import Fitted, FittedConfig, LinearHead, PerceptronHead
from fewseg.methods.fusion import (
    AllVectors,
    CrossGuided,
    Fusion,
    IterativeInference,
    MeanVector,
    ScoreAverage,
    ShotAttention,
    Vote,
)
from fewseg.methods.hsnet import HSNet, HSNetConfig
from fewseg.methods.insid3 import INSID3, INSID3Config
from fewseg.methods.matcher import Matcher, MatcherConfig
from fewseg.methods.pair_scorer import PairScorer
from fewseg.methods.panet import PANet, PANetConfig
from fewseg.methods.pfenet import PFENet, PFENetConfig
from fewseg.methods.pgnet import PGNet, PGNetConfig
from fewseg.methods.pmms import PMMs, PMMsConfig
from fewseg.methods.ppnet import PPNet, PPNetConfig
from fewseg.methods.prototypical import PrototypeSegmenter
from fewseg.methods.registry import create_method, list_methods, method_config, method_name, register_method
from fewseg.methods.repri import RePRI, RePRIConfig
from fewseg.methods.rpmms import RPMMs, RPMMsConfig
from fewseg.methods.scl import SCLCANet, SCLCANetConfig, SCLPFENet, SCLPFENetConfig
from fewseg.methods.sdaanet import SDAANet, SDAANetConfig
from fewseg.methods.sgone import SGOne, SGOneConfig
from fewseg.methods.srpnet import SRPNet, SRPNetConfig

__all__ = [
    "AMP",
    "BAM",
    "DAN",
    "INSID3",
    "AMPConfig",
    "ASGNet",
    "ASGNetConfig",
    "AllVectors",
    "BAMConfig",
    "CANet",
    "CANetConfig",
    "CRNet",
    "CRNetConfig",
    "Combined",
    "CombinedConfig",
    "CrossGuided",
    "DANConfig",
    "FewShotSegmenter",
    "Fitted",
    "FittedConfig",
    "Fusion",
    "HSNet",
    "HSNetConfig",
    "INSID3Config",
    "IterativeInference",
    "LinearHead",
    "Matcher",
    "MatcherConfig",
    "MeanVector",
    "MethodConfig",
    "PANet",
    "PANetConfig",
    "PFENet",
    "PFENetConfig",
    "PGNet",
    "PGNetConfig",
    "PMMs",
    "PMMsConfig",
    "PPNet",
    "PPNetConfig",
    "PairScorer",
    "PerceptronHead",
    "PrototypeSegmenter",
    "RPMMs",
    "RPMMsConfig",
    "RePRI",
    "RePRIConfig",
    "SCLCANet",
    "SCLCANetConfig",
    "SCLPFENet",
    "SCLPFENetConfig",
    "SDAANet",
    "SDAANetConfig",
    "SGOne",
    "SGOneConfig",
    "SRPNet",
    "SRPNetConfig",
    "ScoreAverage",
    "ShotAttention",
    "Vote",
    "create_method",
    "list_methods",
    "method_config",
    "method_name",
    "register_method",
]
