"""CANet: Class-Agnostic Segmentation Networks with Iterative Refinement (Zhang et al., CVPR 2019)."""

from fewseg.methods.canet.model import CANet, CANetConfig

__all__ = ["CANet", "CANetConfig"]
