"""Models: from a model directory to answers. Knows nothing of Kafka."""
