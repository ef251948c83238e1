"""SCL: Self-Guided and Cross-Guided Learning for Few-Shot Segmentation (Zhang et al., CVPR 2021)."""

from fewseg.methods.scl.on_canet import SCLCANet, SCLCANetConfig
from fewseg.methods.scl.on_pfenet import SCLPFENet, SCLPFENetConfig
from fewseg.methods.scl.self_guided import SelfGuided

__all__ = ["SCLCANet", "SCLCANetConfig", "SCLPFENet", "SCLPFENetConfig", "SelfGuided"]
