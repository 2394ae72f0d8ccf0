"""Processes of this machine: found by a mark, ended with their children, their ports and logs.

Which processes there are is decided in ``ops.platform`` and ``ops.embedded_kafka``. Begin with
``children.py``.
"""
