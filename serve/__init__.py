"""Owns models: the model directory, tokenising, batching, engines, tasks, the replica.

Does not own the connection to Kafka; see ``stream``. Begin with ``replica.py``.
"""
