"""Families of encoders that are tried with tiny models, and the engine that answers for each."""

from __future__ import annotations

# In every run of the tests; the others with `make test-architectures`.
REPRESENTATIVE = {"mpnet": "openvino", "modernbert": "openvino", "gpt2": "torch"}
OTHERS = {
    "big_bird": "openvino",
    "deberta": "openvino",
    "deberta-v2": "openvino",
    "megatron-bert": "openvino",
    "mra": "openvino",
    "qwen3": "torch",
    "rembert": "openvino",
    "roformer": "openvino",
    "squeezebert": "openvino",
    "ultrabert": "openvino",
    "longformer": "torch",
    "xlm": "torch",
    "flaubert": "torch",
}
