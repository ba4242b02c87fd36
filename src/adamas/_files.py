"""Files that are there as a whole or not at all, whatever happens while they are written."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SCRATCH = ".part"
"""How the names of files end that are being written, or were when a process died."""


class System:
    """The calls to the operating system that a file is replaced by: one place, so that a test can look at their order.

    A file that is only closed may be empty after a power cut, and so may one that is renamed but not flushed; the new
    name itself is durable once its folder is flushed.
    """

    def create(self, path: Path) -> int:
        """Make a new file and return its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write at an offset and return how many bytes were taken."""
        return os.pwrite(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        """Wait until all that was written is on the disk."""
        os.fsync(descriptor)

    def replace(self, scratch: Path, path: Path) -> None:
        """Give a file its name, in place of what has it."""
        os.replace(scratch, path)  # noqa: PTH105 - the name that says that it replaces

    def sync_folder(self, path: Path) -> None:
        """Wait until the names in a folder are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


SYSTEM = System()


class Writer:
    """A file that is being written, from its beginning to its end; what was written may be corrected."""

    def __init__(self, system: System, descriptor: int) -> None:
        self.system, self.descriptor = system, descriptor
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write at the end."""
        self.write_at(self.size, data)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write bytes at an offset."""
        rest = memoryview(data).cast("B")
        while rest:
            taken = self.system.write(self.descriptor, rest, offset)
            offset, rest = offset + taken, rest[taken:]
        self.size = max(self.size, offset)


@contextmanager
def replacing(path: str | os.PathLike[str], system: System = SYSTEM) -> Iterator[Writer]:
    """Write a file that takes its place, whole, when the with block ends; if it raises, the old one stays.

    It is written under another name in the same folder, flushed, renamed, and the folder flushed. What crashes left of
    earlier attempts is removed. Raises OSError, which says so, if the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        remove_leftovers(target)
        scratch, descriptor = _created(target, system)
        try:
            yield Writer(system, descriptor)
            system.sync(descriptor)
            system.replace(scratch, target)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        kept = "; what was there before is as it was" if target.exists() else ""
        raise OSError(error.errno, f"{path} was not written: {error.strerror or error}{kept}") from error
    system.sync_folder(target.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8 that is there as a whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def link(path: Path, name: str) -> None:
    """Make a path a link to a name in its folder, in place of what is there, at once."""
    scratch = path.with_name(f".{path.name}{SCRATCH}")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(name)
    SYSTEM.replace(scratch, path)
    SYSTEM.sync_folder(path.parent)


def _created(target: Path, system: System) -> tuple[Path, int]:
    """Return a new file beside the target, locked, so that others see that somebody is still writing it."""
    while True:
        scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}{SCRATCH}")
        descriptor = system.create(scratch)
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            if scratch.stat().st_ino == os.fstat(descriptor).st_ino:  # not taken for a leftover before it was locked
                return scratch, descriptor
        os.close(descriptor)


def remove_leftovers(target: Path) -> None:
    """Remove what processes that died left of a file that they were writing."""
    start = f".{target.name}."
    for name in os.listdir(target.parent):  # noqa: PTH208 - a glob would take the name for a pattern
        if not (name.startswith(start) and name.endswith(SCRATCH)):
            continue
        leftover = target.parent / name
        with suppress(OSError):
            descriptor = os.open(leftover, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if its writer lives
                leftover.unlink()
            finally:
                os.close(descriptor)
