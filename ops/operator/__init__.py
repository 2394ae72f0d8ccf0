"""Owns the operator's control loop, which advances releases, scales, repairs and meters usage.

Does not own most of its decisions, which are pure functions of other packages; it gathers their
inputs and acts on their results. Begin with ``loop.py``.
"""
