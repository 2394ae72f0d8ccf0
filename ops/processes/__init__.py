"""Owns the handling of local processes: finding and ending them, their ports and logs.

Does not own the choice of processes to run; see ``ops.platform`` and ``ops.embedded_kafka``. Begin
with ``children.py``.
"""
