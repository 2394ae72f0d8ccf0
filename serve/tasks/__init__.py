"""Owns the tasks: one module for each, from the inputs of a record to its result.

Does not own their interface, ``serve.task``, nor the output record around a result, which is
``stream.schema``'s. Begin with ``text_classification.py``.
"""
