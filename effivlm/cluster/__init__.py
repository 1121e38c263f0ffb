"""Cells on many machines: an engine of others runs workers, this side keeps the one record."""
