"""Methods: one folder a paper, one interface."""
