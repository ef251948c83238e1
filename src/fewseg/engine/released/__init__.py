"""Checkpoints that the authors of PFENet, SCL and SD-AANet released, turned into this package's methods."""

from fewseg.engine.released.canet import (
    RELEASED_CANET_CROSS_GUIDED,
    RELEASED_CANET_SELF_GUIDED,
    released_canet_key,
)
from fewseg.engine.released.importing import ReleasedModel, import_checkpoint, import_released
from fewseg.engine.released.pfenet import RELEASED_CROSS_GUIDED, RELEASED_SELF_GUIDED, released_key
from fewseg.engine.released.sdaanet import released_sdaanet_key

__all__ = [
    "RELEASED_CANET_CROSS_GUIDED",
    "RELEASED_CANET_SELF_GUIDED",
    "RELEASED_CROSS_GUIDED",
    "RELEASED_SELF_GUIDED",
    "ReleasedModel",
    "import_checkpoint",
    "import_released",
    "released_canet_key",
    "released_key",
    "released_sdaanet_key",
]
