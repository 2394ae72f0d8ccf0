"""Families of encoders that cannot be served, with the reasons; pure.

Names are those of ``model_type`` in a configuration. Any other family is tried.
"""

from __future__ import annotations

from typing import Final

_PADDING = "its answer changes with longer texts in the same batch, as padding affects the result"
_PAGE = "it needs the positions of words on a page or in a table, which a text does not have"
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
    "xlnet": "it takes the class from the last token and needs the padding on the left",
    "yoso": _PADDING,
}
"""Reason why a family is not served, by its name."""
