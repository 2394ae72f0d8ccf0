"""Tasks: what the head on the encoder computes and how its numbers become a result."""
