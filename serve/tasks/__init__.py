"""Owns the interpretation of a model's output: one class for each task.

Does not own the output record around a result; see ``stream.schema``. Begin with ``registry.py``.
"""
