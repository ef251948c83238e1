"""Names of the precisions in which a method runs."""

from typing import Literal

Precision = Literal["fp32", "bf16"]
