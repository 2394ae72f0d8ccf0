"""What people may ask for: each action checks, acts and writes the ledger in one transaction.

HTTP is in ``ops.api``, the command line in ``ops.cli``. Begin with ``service.py``.
"""
