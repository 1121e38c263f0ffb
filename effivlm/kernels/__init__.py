"""Triton kernels, one file per family; a PyTorch fallback stands beside each user."""
