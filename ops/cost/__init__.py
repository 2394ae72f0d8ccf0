"""Owns the metering and cost of models: sampling, billing, ceilings, advice.

Does not own prices, which are settings; see ``ops.config``. Begin with ``billing.py``.
"""
