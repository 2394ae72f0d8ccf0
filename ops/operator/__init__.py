"""The control loop of the operator: advances releases, scales, repairs and meters usage.

Decisions are pure functions, most of them of other packages; this one gathers and acts. Begin with
``loop.py``.
"""
