"""Where we reach into somebody else's model: attention watchers, column sums, meters."""
