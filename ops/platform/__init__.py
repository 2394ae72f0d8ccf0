"""`up`, `down` and `status`: Kafka, the Ray head, apps, and the operator with its supervisor.

What the operator does is in ``ops.operator``. Begin with ``bring_up.py``.
"""
