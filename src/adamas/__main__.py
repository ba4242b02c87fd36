"""``python -m adamas`` is the command `adamas`."""

from adamas.cli import main

main()
