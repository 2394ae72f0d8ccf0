"""Models: the model directory, tokenising, batching, engines, tasks, the replica.

Kafka is unknown here. Begin with ``replica.py``.
"""
