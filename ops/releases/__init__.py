"""Owns releases: states and transitions, approvals, routes, and the retention of versions.

Does not own the loop that advances them; see ``ops.operator``. Begin with ``state_machine.py``,
then ``next_event.py``.
"""
