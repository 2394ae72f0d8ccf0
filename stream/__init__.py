"""Kafka in, Kafka out: the pipeline. Knows of models only ``serve.contract``."""
