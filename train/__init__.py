"""Fine-tuning: writes the model directories that ``serve`` reads."""
