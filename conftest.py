"""The Python examples of README and docs are tests, each page in an empty folder."""

import tempfile
from contextlib import chdir
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


def enter(namespace: dict[str, Any]) -> None:
    folder = tempfile.TemporaryDirectory()
    place = chdir(folder.name)
    place.__enter__()
    namespace["_leave"] = lambda: (place.__exit__(None, None, None), folder.cleanup())


def leave(namespace: dict[str, Any]) -> None:
    namespace["_leave"]()


pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"], setup=enter, teardown=leave).pytest()
