"""Caches and the two engines that decode them: step by step, and as one captured step."""
