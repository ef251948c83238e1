"""Training, evaluation, checkpoints and results."""
