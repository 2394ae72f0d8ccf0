"""Owns ``up``, ``down`` and ``status``: Kafka, the Ray head, apps, the operator and its supervisor.

Does not own the operator's work; see ``ops.operator``. Begin with ``bring_up.py``.
"""
