"""Owns the SQL database: connections, transactions, tables, migrations, the operator's lease.

Does not own the meaning of rows, which the packages that use them define. Begin with ``tables.py``.
"""
