"""PFENet: Prior Guided Feature Enrichment Network for Few-Shot Segmentation (Tian et al., TPAMI 2020)."""

from fewseg.methods.pfenet.model import PFENet, PFENetConfig

__all__ = ["PFENet", "PFENetConfig"]
