"""Changing a checkpoint's weights: statistics of calibration inputs, the mathematics of methods, and the product on disk."""
