"""Owns the Kafka client, imported only here: sources, sinks, readers, topics, login.

Does not own the order of calls; see ``stream.pipeline``. Begin with ``source.py`` and ``sink.py``.
"""
