"""Owns the control API over HTTP: paths, authentication, uploads, the shape of every error.

Does not own the actions; see ``ops.service``. Begin with ``app.py``.
"""
