"""Models and their numbered versions: rows, files, transfer, and the differences of two versions.

Which version serves is decided in ``ops.releases``. Begin with ``registry.py``.
"""
