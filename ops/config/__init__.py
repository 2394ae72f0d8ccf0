"""The settings of a platform: the YAML file, its mistakes with their places, the state directory.

The policy of a model is in ``ops.policy``; settings of pipelines and model versions are in
``stream`` and ``serve``. Begin with ``settings.py``, then ``file.py``.
"""
