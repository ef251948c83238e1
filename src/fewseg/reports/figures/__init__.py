"""The papers' figures, made from checkpoints, data and results; see ``fewseg report figures``."""
