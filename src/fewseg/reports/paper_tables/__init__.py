"""The papers' tables, rebuilt: printed values with our figures beside them."""

from fewseg.reports.paper_tables.build import LAYOUTS, paper_tables
from fewseg.reports.paper_tables.csv_table import csv_tables
from fewseg.reports.paper_tables.html_table import html_page, html_table
from fewseg.reports.paper_tables.latex_table import latex_paper_table
from fewseg.reports.paper_tables.model import PaperTable
from fewseg.reports.paper_tables.text_table import markdown_paper_table, rich_paper_table

__all__ = [
    "LAYOUTS",
    "PaperTable",
    "csv_tables",
    "html_page",
    "html_table",
    "latex_paper_table",
    "markdown_paper_table",
    "paper_tables",
    "rich_paper_table",
]
