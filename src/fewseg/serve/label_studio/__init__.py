"""Label Studio's ML backend on the server of the page: annotated tasks in, predictions of the others out.

``client`` reads Label Studio, ``label_config`` its labelling configuration, ``project`` keeps the supports of
a project, ``backend`` answers, ``routes`` is the protocol in HTTP. Needs the extra ``serve``.
"""
