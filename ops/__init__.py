"""Owns the platform around pipelines and models: configuration, processes, releases, the command.

Does not own records or models; see ``stream`` and ``serve``. Begin with ``platform/bring_up.py``
for what ``up`` does, then ``operator/loop.py`` for what happens afterwards.
"""
