"""PANet: prototypes by cosine, trained with prototype alignment."""

from fewseg.methods.panet.alignment import Alignment, NoAlignment, PrototypeAlignment, alignment_loss
from fewseg.methods.panet.model import PANet, PANetConfig

__all__ = ["Alignment", "NoAlignment", "PANet", "PANetConfig", "PrototypeAlignment", "alignment_loss"]
