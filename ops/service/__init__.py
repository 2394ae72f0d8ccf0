"""Owns the actions of the control API: each checks, acts and writes the ledger in one transaction.

Does not own HTTP or the command line; see ``ops.api`` and ``ops.cli``. Begin with ``service.py``.
"""
