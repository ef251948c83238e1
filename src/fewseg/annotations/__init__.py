"""Annotated images in, predictions out: masks, COCO, LabelMe, Label Studio, YOLO, CVAT, VIA, JSON lines.

A reader gives :class:`.values.AnnotatedImage`, a writer takes :class:`.values.Prediction`; each format
has both in one file. :data:`.options.TITLES` lists the formats that are written,
:func:`.formats.read_supports` recognises a format by its content. Nothing is imported here, so that
``options`` needs no torch.
"""
