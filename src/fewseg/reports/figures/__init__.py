"""The papers' figures, from checkpoints and results: one file for each idea, its data beside its drawing."""
