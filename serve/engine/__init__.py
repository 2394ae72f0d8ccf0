"""Engines: padded batches in, numbers out, on OpenVINO or torch.

Which items make a batch is decided in ``serve.batching``. Begin with ``protocol.py``, then
``choice.py``.
"""
