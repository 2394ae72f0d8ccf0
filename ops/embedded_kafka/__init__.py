"""The Kafka that comes with the product: its jars, its Java, its configuration, its process.

Clients of it are in ``stream.kafka``. Begin with ``broker.py``.
"""
