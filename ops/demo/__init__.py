"""Owns the demonstrations: their models, texts, load and counts.

Does not own any behaviour of the product, which it uses through the same functions as the command.
Begin with ``stream.py``.
"""
