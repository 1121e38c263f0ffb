"""Functions of text and numbers only: scorers, OP, OG, OL, OE and their statistics."""
