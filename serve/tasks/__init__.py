"""What the numbers of a model mean: one class for each task.

The shape of a record around a result is in ``stream.schema``. Begin with ``registry.py``.
"""
