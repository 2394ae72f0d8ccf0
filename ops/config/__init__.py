"""Owns the settings of a platform: the YAML file, its errors by line, the state directory.

Does not own policies, see ``ops.policy``, nor settings of pipelines and model versions, see
``stream`` and ``serve``. Begin with ``settings.py``, then ``file.py``.
"""
