"""fewseg: few-shot segmentation, from one to a few annotated images to masks on any other image."""

__version__ = "0.1.0"
