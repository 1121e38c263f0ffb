"""A listing of this folder is the list of tasks; files that start with an underscore are the bases."""
