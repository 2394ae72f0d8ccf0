"""Probes of the platform, findings with one grade, and alerts.

Repairs are in ``ops.operator``. Begin with ``rules.py``.
"""
