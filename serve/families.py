"""Families of encoders that cannot be served, and why; pure.

Knows names as ``model_type`` of a configuration has them. Any other family is tried as it is.
"""

from __future__ import annotations

from typing import Final

_PADDING = "its answer to a text changes with the longer texts beside it, as padding is computed on"
_PAGE = "it reads where words are on a page or in a table, which a text does not have"
_CHARACTERS = "it reads characters and has no tokenizer.json"

REFUSED: Final = {
    "canine": _CHARACTERS,
    "convbert": _PADDING,
    "fnet": _PADDING,
    "ibert": "its quantised embeddings cannot be checked against token ids",
    "layoutlm": _PAGE,
    "layoutlmv2": _PAGE,
    "layoutlmv3": _PAGE,
    "lilt": _PAGE,
    "markuplm": _PAGE,
    "nystromformer": _PADDING,
    "tapas": _PAGE,
    "xlnet": "it takes the class from the last token and needs its padding on the left",
    "yoso": _PADDING,
}
"""Why no replica serves a family, by its name."""
