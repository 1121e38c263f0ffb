"""One cell alone on its device."""
