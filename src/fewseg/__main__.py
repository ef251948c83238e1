"""``python -m fewseg`` is ``fewseg``."""

import sys

from fewseg.cli import main

sys.exit(main())
