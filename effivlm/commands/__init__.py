"""Commands of `python -m effivlm` that have a file of their own."""
