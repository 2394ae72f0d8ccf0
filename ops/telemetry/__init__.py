"""What pipelines have reported lately: telemetry, comparisons and heartbeats, in memory.

Evidence and findings made from it are in ``ops.analysis`` and ``ops.health``. Begin with
``observations.py``.
"""
