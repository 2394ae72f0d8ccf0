"""How many replicas and consumers there should be, from backlog, rates and capacity.

Applying a target is in ``ops.serving``. Begin with ``decision.py``.
"""
