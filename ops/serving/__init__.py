"""Owns the use of Ray Serve: deploys, scales and calls the apps of versions and pipelines.

Does not own the number of replicas, see ``ops.scaling``, nor the Ray head, see ``ops.platform``.
Begin with ``apps.py``.
"""
