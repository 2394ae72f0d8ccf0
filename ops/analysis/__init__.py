"""Owns the analysis of releases: gates, verdicts on steps, and the statistics behind them.

Does not own what follows from a verdict; see ``ops.releases``. Begin with ``verdict.py``.
"""
