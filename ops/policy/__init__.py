"""Owns the policy of a model: its shape, YAML text, stored versions and release windows.

Does not own the decision whether a version meets a policy; see ``ops.analysis`` and
``ops.releases``. Begin with ``policy.py``.
"""
