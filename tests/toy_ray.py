"""`run --on ray` over the toy world: `python toy_ray.py ADDRESS ARGUMENTS`, the toy's names in place of the real ones."""

from __future__ import annotations

import sys

import toy_world

if __name__ == "__main__":
    toy_world.install()
    from effivlm.commands import clustered

    try:
        code = clustered.run(sys.argv[1], sys.argv[2:], setup=toy_world.install)
    except ValueError as error:
        print(error, file=sys.stderr)
        code = 1
    sys.exit(code)
