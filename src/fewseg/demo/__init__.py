"""One command that shows few-shot segmentation at work, from nothing, in a few minutes."""

from fewseg.demo.options import DemoOptions, PretrainConfig
from fewseg.demo.run import DemoResult, run_demo
from fewseg.demo.summary import rich_table

__all__ = ["DemoOptions", "DemoResult", "PretrainConfig", "rich_table", "run_demo"]
