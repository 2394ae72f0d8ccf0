"""The policy of a model: its shape, its YAML text, its stored versions and its release windows.

Whether a version meets a policy is decided in ``ops.analysis`` and ``ops.releases``. Begin with
``policy.py``.
"""
