"""Owns the engines, which compute output arrays from padded batches with OpenVINO or torch.

Does not own the forming of batches; see ``serve.batching``. Begin with ``protocol.py``, then
``choice.py``.
"""
