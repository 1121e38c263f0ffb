"""An example package of the documentation."""
