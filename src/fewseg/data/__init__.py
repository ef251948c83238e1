"""Readers, indices, episodes and views: everything between files on disk and tensors."""
