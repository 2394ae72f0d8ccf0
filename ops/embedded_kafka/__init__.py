"""Owns the embedded Kafka broker: its jars, its Java, its configuration, its process.

Does not own the clients; see ``stream.kafka``. Begin with ``broker.py``.
"""
