"""Who may do what: people, grants, tokens, permissions, and the ledger of what they did.

What an action does is in ``ops.service``. Begin with ``transactions.py``.
"""
