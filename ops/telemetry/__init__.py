"""Owns the recent reports of pipelines: telemetry, comparisons and heartbeats, in memory.

Does not own the evidence and findings made from them; see ``ops.analysis`` and ``ops.health``.
Begin with ``observations.py``.
"""
