"""Judgements from numbers: gates before a release, verdicts on its steps, the statistics behind
them.

What follows from a judgement is decided in ``ops.releases``. Begin with ``verdict.py``.
"""
