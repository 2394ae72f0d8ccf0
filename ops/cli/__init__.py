"""Owns the command ``bertstream``: options, output, exit codes.

Does not own the actions; see ``ops.service`` and ``ops.platform``. The libraries of the platform
are imported only by the command that needs them, to start quickly. Begin with ``main.py``.
"""
