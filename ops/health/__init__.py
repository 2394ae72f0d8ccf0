"""Owns the platform's health: probes, findings with one grade, and alerts.

Does not own repairs; see ``ops.operator``. Begin with ``rules.py``.
"""
