"""The page of ``fewseg serve``: annotate in the browser, see predictions, download them.

``limits``, ``workspace``, ``sessions`` and ``export`` know nothing of HTTP; ``app`` needs the extra
``serve``.
"""
