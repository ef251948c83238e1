"""One command that shows few-shot segmentation at work, from nothing, in a few minutes."""

from fewseg.demo.options import DemoOptions, PretrainConfig
from fewseg.demo.report import rich_table
from fewseg.demo.run import DemoResult, run_demo

__all__ = ["DemoOptions", "DemoResult", "PretrainConfig", "rich_table", "run_demo"]
