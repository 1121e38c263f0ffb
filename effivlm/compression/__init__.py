"""What methods are made of: bases, views, budgets, choosing, merging, layers."""
