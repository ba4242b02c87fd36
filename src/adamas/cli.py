"""The command `adamas`: where it starts, and how it ends. What it does is in `adamas._commands`."""

import sys
from importlib.util import find_spec

__all__ = ["main"]

INTERRUPTED = 130


def main() -> None:
    """Run the command and exit: with status 0, with 2 after an error (one line on stderr), with 130 after Ctrl-C."""
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _run() -> int:
    if missing := [package for package in ("typer", "rich") if find_spec(package) is None]:
        return _fail(f"the command needs {' and '.join(missing)}: pip install 'adamas[cli]'")
    from adamas import _commands  # noqa: PLC0415 - it imports what is known to be there only now

    try:
        status = _commands.run()
    except _commands.UsageError as error:
        return _fail(error.format_message())
    except (ImportError, MemoryError, OSError) as error:  # the user's to mend; the rest are bugs
        return _fail(str(error))
    if status == INTERRUPTED:  # typer turns Ctrl-C into this
        raise KeyboardInterrupt
    return status


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
