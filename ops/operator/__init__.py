"""The round of the operator: releases, scaling, repairs, metering.

Each decision is made by a pure function of another package; this one gathers and acts. Begin with
``loop.py``.
"""
