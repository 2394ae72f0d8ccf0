"""stream/kafka."""
