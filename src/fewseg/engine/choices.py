"""Names that the command line offers; free of torch, so that options are checked at once."""

from typing import Literal

Precision = Literal["fp32", "bf16"]
"""In which a method runs."""

PrecisionOption = Literal["auto", "fp32", "bf16"]
"""What an option takes; ``engine.environment.precision_on`` says what auto is on a device."""

FusionName = Literal["mean", "average", "cross-guided", "attention", "iterative", "fit", "vote", "all"]
"""The kinds of ``methods.fusion.FUSIONS``; a test keeps the two equal."""

Target = Literal["query", "support"]
"""What is segmented: the queries, or the support images themselves (SRPNet's "(sup)" rows)."""
