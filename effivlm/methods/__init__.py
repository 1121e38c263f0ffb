"""A listing of this folder is the list of methods; files that start with an underscore are the bases."""
