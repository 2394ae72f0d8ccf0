"""Owns the pipeline: reads records, calls replicas, and commits results with offsets.

Does not own models, see ``serve``, nor the choice of the version that answers, which is made in
``ops`` and read from a topic. Begin with ``pipeline.py``.
"""
