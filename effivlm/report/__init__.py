"""Outcomes to document to page; needs neither torch nor pytest."""
