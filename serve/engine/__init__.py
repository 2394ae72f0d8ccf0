"""Owns the engines, which compute the output arrays of items with OpenVINO or torch.

Does not own the planning of batches; see ``serve.batching``. Begin with ``protocol.py``, then
``padding.py`` and ``choice.py``.
"""
