"""Methods that claims need and no preset expresses: one thing is changed, and all else stays as in the method beside it."""
