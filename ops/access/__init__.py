"""Owns access control: people, grants, tokens, permissions, and the ledger of actions.

Does not own the actions; see ``ops.service``. Begin with ``transactions.py``.
"""
