"""The platform around pipelines and models: configuration, processes, releases, the command.

Records and models are in ``stream`` and ``serve``. Begin with ``platform/bring_up.py`` for what
`up` does, ``operator/loop.py`` for what happens afterwards.
"""
