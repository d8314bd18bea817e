"""The archive, verified in a thread of its own while everything else gets ready."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

from plp_builder.errors import ArchiveInvalid, exhausted

if TYPE_CHECKING:
    from types import TracebackType

    from plp_builder.oci.artifact import Artifact

SWITCH_INTERVAL = 1e-4
"""Hashing needs Python only for a moment between two megabytes. With the usual 5 ms, an import in
the other thread would make it wait for most of the time."""

LOOK = 0.1
LEAVE = 1.0
"""Seconds. A disk that does not answer holds up nobody but the thread that asked it."""


class Verified(NamedTuple):
    """An archive whose content was checked, still open, and how it looked at that time."""

    path: Path
    file: BinaryIO
    artifact: Artifact
    seconds: float
    looked: tuple[int, ...]

    @property
    def total(self) -> int:
        """Bytes of all layers and configurations that belong to the image."""
        from plp_builder.oci.walk import is_document

        found = (blob.descriptor for blob in self.artifact.blobs.values())
        return sum(each.size for each in found if not is_document(each))

    def top(self) -> bytes:
        """The manifest or index that tags will point to, as it is in the file now."""
        blob = self.artifact.blobs[self.artifact.top.digest]
        if blob.data is not None:
            return blob.data
        return os.pread(self.file.fileno(), blob.descriptor.size, blob.offset)

    def changed(self) -> bool:
        """Whether somebody has written to the file since."""
        return _look(self.file.fileno()) != self.looked


def _look(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class _CalledOff(Exception):
    """Nobody wants to know any more."""


class Verification:
    """Begins with ``with``, and is called off at the end of the block."""

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        """``check`` is called by another thread every few MB, and by who waits; it may raise."""
        self.path = path
        self._check = check
        self._verified: Verified | None = None
        self._error: BaseException | None = None
        self._called_off = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._interval = sys.getswitchinterval()
        try:
            self._thread.start()
        except RuntimeError as error:
            raise (exhausted(error) or error) from error
        sys.setswitchinterval(SWITCH_INTERVAL)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._called_off = True
        self._thread.join(LEAVE)
        sys.setswitchinterval(self._interval)
        self._close()

    def result(self) -> Verified:
        """Wait for the end. Raises ArchiveInvalid, or what ``check`` raised in either thread."""
        while self._thread.is_alive():
            self._check()
            self._thread.join(LOOK)
        sys.setswitchinterval(self._interval)
        if self._error is not None:
            raise self._error
        if self._verified is None:
            raise ValueError("the verification was called off")
        return self._verified

    def _close(self) -> None:
        if self._verified:
            self._verified.file.close()

    def _look_up(self) -> None:
        if self._called_off:
            raise _CalledOff
        self._check()

    def _run(self) -> None:
        try:
            self._verified = _verify(self.path, self._look_up)
        except _CalledOff:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
        if self._called_off:
            self._close()


def _verify(path: Path, check: Callable[[], None]) -> Verified:
    from plp_builder.oci import artifact

    began = time.monotonic()
    path = artifact.choose(path)
    try:
        return _verified(path, artifact.opened(path), check, began)
    except ArchiveInvalid as failure:
        if str(path) in failure.what:
            raise
        why = (f"archive: {path} (PLP_ARTIFACT_PATH)", *failure.why)
        raise ArchiveInvalid(failure.what, why=why, hint=failure.hint) from failure


def _verified(path: Path, file: BinaryIO, check: Callable[[], None], began: float) -> Verified:
    from plp_builder.oci import artifact

    try:
        looked = _look(file.fileno())
        found = artifact.read(file, check=check)
        verified = Verified(path, file, found, time.monotonic() - began, looked)
        if verified.changed():
            raise ArchiveInvalid(f"{path} changed while it was verified")
    except OSError as error:
        file.close()
        unreadable = ArchiveInvalid(f"{path} cannot be read", why=[str(error)])
        raise (exhausted(error) or unreadable) from error
    except BaseException:
        file.close()
        raise
    return verified
