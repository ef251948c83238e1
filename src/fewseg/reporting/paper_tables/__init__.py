"""The papers' tables, rebuilt: printed values with our figures beside them."""

from fewseg.reporting.paper_tables.build import LAYOUTS, paper_tables
from fewseg.reporting.paper_tables.model import PaperTable

__all__ = ["LAYOUTS", "PaperTable", "paper_tables"]
