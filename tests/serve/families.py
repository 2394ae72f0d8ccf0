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
# With the head of a text classifier; these all with `make test-architectures`.
CLASSIFIERS = {
    family: engine
    for engine, families in {
        "openvino": """
    albert bert big_bird camembert data2vec-text deberta deberta-v2 distilbert electra ernie
    esm esmc eurobert gte jina_embeddings_v3 luke megatron-bert mobilebert modernbert mpnet mra
    nomic_bert openai-gpt rembert roberta roberta-prelayernorm roc_bert roformer squeezebert
    ultrabert xlm-roberta xlm-roberta-xl
        """,
        "torch": """
    arcee axk2 biogpt bloom ctrl diffllama doge exaone4 flaubert funnel gemma gemma2 gemma3_text
    glm glm4 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss helium hunyuan_v1_dense
    hunyuan_v1_moe jamba jetmoe llama longformer minicpm3 minimax ministral ministral3
    mistral mixtral modernbert-decoder nemotron olmo olmo2 olmo3 opt persimmon phi phi3
    phimoe qwen2_moe qwen3 seed_oss smollm3 stablelm starcoder2 xlm
        """,
    }.items()
    for family in families.split()
}
USUAL_CLASSIFIERS = ("distilbert", "deberta-v2", "llama")
