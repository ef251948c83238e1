"""Segmenting a folder of images with a few annotated ones: formats in and out."""
