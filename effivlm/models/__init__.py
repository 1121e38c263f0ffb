"""One file per model family; the only folder that imports transformers' model classes."""
