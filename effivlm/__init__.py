"""effivlm: what training-free acceleration of vision-language models costs in quality, and what it saves."""

__version__ = "0.1.0"
