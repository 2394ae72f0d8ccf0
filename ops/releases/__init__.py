"""Releases: states and transitions, approvals, routes, and which versions must be kept.

The round that moves them is in ``ops.operator``. Begin with ``state_machine.py``, then
``next_event.py``.
"""
