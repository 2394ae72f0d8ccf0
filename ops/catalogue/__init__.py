"""Owns models and their numbered versions: rows, files, transfer and differences.

Does not own the choice of the live version; see ``ops.releases``. Begin with ``registry.py``.
"""
