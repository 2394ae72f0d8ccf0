"""The demonstrations: their models, texts, load and count.

They use the product as a user would, through the same functions as the command. Begin with
``stream.py``.
"""
