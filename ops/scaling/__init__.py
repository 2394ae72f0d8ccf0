"""Owns the target numbers of replicas and consumers, from backlog, rates and capacity.

Does not own the application of a target; see ``ops.serving``. Begin with ``decision.py``.
"""
