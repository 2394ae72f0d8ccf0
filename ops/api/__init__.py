"""The control API over HTTP: addresses, authentication, uploads, the shape of every error.

What an action does is in ``ops.service``. Begin with ``app.py``.
"""
