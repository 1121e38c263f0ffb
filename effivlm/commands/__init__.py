"""Commands of `python -m effivlm`, one a file: each adds itself, with what runs it, to the parser."""

RUN = "reports/2026-01-31T12-00-00"
"""A run's folder, in examples."""
