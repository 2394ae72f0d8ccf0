"""From Kafka to Kafka: the loop that reads, calls replicas, and commits results with offsets.

Models are in ``serve``; which version answers is decided in ``ops`` and read from a topic. Begin
with ``pipeline.py``.
"""
