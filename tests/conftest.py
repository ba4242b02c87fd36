"""What several test modules need made."""

import subprocess

import pytest
from command import COMMAND


@pytest.fixture
def adamas_(tmp_path):
    """The command in a process of its own, in an empty folder."""

    def run(*arguments, command=COMMAND, timeout=120):
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=timeout
        )

    return run
