"""Fine-tuning: from labelled texts to a sealed model directory.

Serving it is in ``serve``. Begin with ``text_classification.py``.
"""
