"""The command, as its users run it, for the tests."""

import sys

COMMAND = [sys.executable, "-W", "error", "-m", "adamas"]


def error_of(done, folder):
    """Return the line of a command that must have failed and left nothing behind."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert list(folder.iterdir()) == []
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
