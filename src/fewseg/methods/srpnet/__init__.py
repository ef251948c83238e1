"""SRPNet: prototypes compared by fidelity, regularised on their own supports, iterated at inference."""

from fewseg.methods.srpnet.model import SRPNet, SRPNetConfig

__all__ = ["SRPNet", "SRPNetConfig"]
