"""A session without pytest: which cells, run them, record them."""
