"""One group of cells: shared work, prefill, answers, and what a report shows of them."""
