"""Annotated images in, predictions out: mask files, COCO, LabelMe, Label Studio, JSON lines.

A reader gives :class:`.values.AnnotatedImage`, a writer takes :class:`.values.Prediction`; each format
has both in one file. :data:`.formats.FORMATS` opens a writer by the name of its format,
:func:`.formats.read_supports` recognises a format by its content. Nothing is imported here, so that
``options`` needs no torch.
"""
