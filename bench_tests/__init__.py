"""The cases: what compression costs in quality, and what it saves. Installed, this folder is `effivlm.bench`."""
