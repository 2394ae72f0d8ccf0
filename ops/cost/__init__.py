"""What models use and what that costs: sampling, billing, ceilings, advice.

Prices are settings, in ``ops.config``. Begin with ``billing.py``.
"""
