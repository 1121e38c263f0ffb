"""Judges of open answers: what they are asked, how their replies are had, kept and read, and how far they can be trusted."""
