"""The only package that imports the Kafka client: sources, sinks, readers, topics, login.

The order of calls is in ``stream.pipeline``. Begin with ``source.py`` and ``sink.py``.
"""
