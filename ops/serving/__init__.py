"""Ray Serve: deploying, scaling and calling the apps of versions and pipelines.

How many replicas there should be is decided in ``ops.scaling``; the Ray head is in
``ops.platform``. Begin with ``apps.py``.
"""
