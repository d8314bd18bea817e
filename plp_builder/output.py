"""The archive's way into the build directory: whole or not at all.

The bytes go into a file without a name (O_TMPFILE), so that nothing is left behind however
the run ends. File systems that cannot do that get a hidden temporary name, locked while it is
in use; a later run removes what a killed one left.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from plp_builder.errors import ArchiveInvalid, ArchiveNotWritten
from plp_builder.oci import archive as oci_archive
from plp_builder.oci import reference, tar, tar_headers
from plp_builder.oci.archive import DOCKER_MANIFEST, Archive
from plp_builder.oci.contents import Contents
from plp_builder.oci.copying import copy

if TYPE_CHECKING:
    from plp_builder.oci.assembly import Draft, Holds
    from plp_builder.oci.model import Descriptor

MODE = 0o644

_SUFFIX = ".partial"
_MAX_TAIL = 1024 * 1024


class Output:
    """One archive on its way. A context manager; leaving it unpublished leaves nothing.

    ``file`` is open for reading and writing, empty at first: give it to buildctl as stdout.
    """

    def __init__(self, build: Path, name: str) -> None:
        """Open it in the directory ``build``; raises ArchiveNotWritten where that fails."""
        self.path = build / name
        self._directory = -1
        self._temporary = ""
        try:
            self._directory = os.open(build, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._refuse_directory()
            self._remove_stale()
            self.file: BinaryIO = open(self._open(), "r+b", buffering=0)  # noqa: PTH123, SIM115
        except OSError as error:
            self._close_directory()
            raise self._not_written(error) from error
        except ArchiveNotWritten:
            self._close_directory()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
        with suppress(OSError):
            self.file.close()
        self._close_directory()

    def restart(self) -> None:
        """Empty the file for another attempt. Raises ArchiveNotWritten."""
        try:
            self.file.seek(0)
            self.file.truncate()
        except OSError as error:
            raise self._not_written(error) from error

    def assemble(
        self,
        layout: Path,
        top: Descriptor,
        *,
        names: Iterable[str] = (),
        archive_format: str = "auto",
        holds: Holds | None = None,
        done: Draft | None = None,
        check: Callable[[], None],
    ) -> None:
        """Write the image ``top`` of a layout into the file: see `oci.assembly.assemble`.

        What an attempt before has written goes, except what is ``done``. Raises BlobDamaged,
        ArchiveInvalid or ArchiveNotWritten.
        """
        from plp_builder.oci import assembly

        if not done:
            self.restart()
        try:
            assembly.assemble(
                self.file.fileno(),
                layout,
                top,
                names=names,
                archive_format=archive_format,
                holds=holds,
                done=done,
                check=check,
            )
        except OSError as error:
            raise self._not_written(error) from error

    def publish(
        self,
        check: Callable[[], None],
        *,
        references: Iterable[str] = (),
        verified: bool = False,
    ) -> Archive:
        """Verify the archive and put it in its place; what is returned is what lies there.

        ``references`` are the image's names: those that manifest.json lacks are added to it.
        Of an archive that was assembled from ``verified`` blobs only the documents are read again.
        ``check`` is called every few MB and may raise to stop. Raises ArchiveInvalid or
        ArchiveNotWritten; an older archive is then as it was.
        """
        try:
            if verified:
                found = oci_archive.describe(Contents(self.file, check))
            else:
                found = oci_archive.verify(self.file, check=check)
            found = _with_names(self.file, found, references)
            self._give_away()
            os.fsync(self.file.fileno())
            check()
            self._rename()
        except OSError as error:
            raise self._not_written(error) from error
        # From here on the archive is in its place; a file system that cannot sync a
        # directory does not make it less complete.
        with suppress(OSError):
            os.fsync(self._directory)
        return found

    def _refuse_directory(self) -> None:
        with suppress(FileNotFoundError):
            found = os.stat(self.path.name, dir_fd=self._directory, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise ArchiveNotWritten(
                    f"{self.path} is a directory, so the archive cannot be put there",
                    hint="Remove it, or choose another name with PLP_ARCHIVE_NAME.",
                )

    def _prefix(self) -> str:
        # The name is shortened so that the temporary one fits NAME_MAX (255 bytes) as well.
        return "." + os.fsdecode(os.fsencode(self.path.name)[:200]) + "."

    def _new_name(self) -> str:
        return f"{self._prefix()}{os.urandom(6).hex()}{_SUFFIX}"

    def _open(self) -> int:
        with suppress(OSError):
            descriptor = os.open(
                ".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self._directory
            )
            _lock(descriptor)
            return descriptor
        return self._open_named()

    def _open_named(self) -> int:
        while True:
            self._temporary = self._new_name()
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
            descriptor = os.open(self._temporary, flags, 0o600, dir_fd=self._directory)
            # Another run may take it for a stale one before it is locked.
            with suppress(BlockingIOError):
                _lock(descriptor)
                if os.fstat(descriptor).st_nlink:
                    return descriptor
            os.close(descriptor)

    def _remove_stale(self) -> None:
        prefix = self._prefix()
        ours = re.compile(re.escape(prefix) + r"[0-9a-f]{12}" + re.escape(_SUFFIX))
        for name in filter(ours.fullmatch, os.listdir(self._directory)):  # noqa: PTH208
            with suppress(OSError):
                flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=self._directory)
                try:
                    if _lock(descriptor):
                        os.unlink(name, dir_fd=self._directory)
                finally:
                    os.close(descriptor)

    def _give_away(self) -> None:
        """Mode and owner: readable to all, and the build directory owner's where permitted."""
        descriptor = self.file.fileno()
        os.fchmod(descriptor, MODE)
        owner = os.fstat(self._directory)
        with suppress(OSError):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def _rename(self) -> None:
        if not self._temporary:
            self._name()
        directory = self._directory
        os.replace(self._temporary, self.path.name, src_dir_fd=directory, dst_dir_fd=directory)
        self._temporary = ""

    def _name(self) -> None:
        """Give the file without a name a temporary one."""
        name = self._new_name()
        try:
            # With a directory descriptor os.link follows the link in /proc, without it does not.
            source = f"/proc/self/fd/{self.file.fileno()}"
            os.link(source, name, dst_dir_fd=self._directory)
        except OSError:
            unnamed = self.file
            self.file = open(self._open_named(), "r+b", buffering=0)  # noqa: PTH123, SIM115
            with unnamed:
                copy(unnamed.fileno(), self.file.fileno(), tar.file_size(unnamed), 0)
            self._give_away()
            os.fsync(self.file.fileno())
        else:
            self._temporary = name

    def _close_directory(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _not_written(self, error: OSError) -> ArchiveNotWritten:
        return ArchiveNotWritten(
            f"The archive {self.path} could not be written",
            why=[error.strerror or str(error)],
            hint=f"Make room in {self.path.parent}, and see that it can be written to.",
        )


def open_output(build: Path, name: str) -> Output:
    """The archive ``name`` in the directory ``build``, as a context manager (see Output)."""
    return Output(build, name)


def _lock(descriptor: int) -> bool:
    """Lock it; False where the file system has no locks. BlockingIOError: it is in use."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _with_names(file: BinaryIO, found: Archive, references: Iterable[str]) -> Archive:
    """The archive with the missing ``references`` added to manifest.json's RepoTags.

    index.json keeps its one entry, because readers of `oci-archive:` want exactly one.
    BuildKit writes manifest.json near the end, so only the tail is written again.
    """
    wanted = [_repo_tag(text) for text in references]
    tags = tuple(dict.fromkeys((*found.repo_tags, *wanted)))
    if not found.has_docker_manifest or tags == found.repo_tags:
        return found
    member = found.members[DOCKER_MANIFEST]
    entries = json.loads(tar.read(file, member.offset, member.size, found.size))
    if len(entries) != 1:
        raise ArchiveInvalid(f"{DOCKER_MANIFEST} describes {len(entries)} images, not one")
    entries[0]["RepoTags"] = list(tags)
    content = json.dumps(entries, separators=(",", ":")).encode()
    start = member.offset - tar.BLOCK
    behind = member.offset + member.size + len(tar_headers.padding(member.size))
    if found.size - behind > _MAX_TAIL:
        raise ArchiveInvalid(f"{DOCKER_MANIFEST} is not near the end, where BuildKit puts it")
    tail = tar.read(file, behind, found.size - behind, found.size)
    header = tar_headers.file_header(DOCKER_MANIFEST, len(content))
    _write(file, start, header + content + tar_headers.padding(len(content)) + tail)
    size = tar.file_size(file)
    members = {member.name: member for member in tar.members(file, size)}
    return found._replace(size=size, repo_tags=tags, members=members)


def _repo_tag(text: str) -> str:
    return reference.parse(text)._replace(digest="").with_default_tag().familiar


def _write(file: BinaryIO, offset: int, data: bytes) -> None:
    file.seek(offset)
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    file.truncate()
