"""One command that shows few-shot segmentation at work, from nothing, in a few minutes."""

from fewseg.demo.config import DemoConfig, PretrainConfig
from fewseg.demo.run import DemoResult, run
from fewseg.demo.summary import rich_table

__all__ = ["DemoConfig", "DemoResult", "PretrainConfig", "rich_table", "run"]
