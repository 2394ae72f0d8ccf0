"""Engines: run padded batches of token ids through a compiled model, on a CPU or a GPU."""
