"""The SQL database: connections, transactions, tables, migrations, and the lease of the operator.

What the rows mean is decided in the packages that read and write them. Begin with ``tables.py``.
"""
