"""Decoder parts shared by methods: mid-level feature, prior map, guide merge, PFENet's pyramid."""
