"""Owns fine-tuning, which turns labelled texts into a sealed model directory.

Does not own the serving of a model; see ``serve``. Begin with ``text_classification.py``.
"""
