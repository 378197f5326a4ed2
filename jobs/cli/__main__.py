"""``python -m jobs.cli``: the command ``un0``."""

from jobs.cli.main import main

main()
