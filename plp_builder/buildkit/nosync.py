"""Let a program and all that it starts never wait for the disk.

A daemon whose state is thrown away at the end has no use for durability, and neither have its
build steps; yet BuildKit's databases, containerd's content store and every package manager ask
for it all the time. A seccomp filter (seccomp(2)) answers fsync and its kin with success at once,
as systemd-nspawn does with ``--suppress-sync=yes``. The
archive and the cache are written by buildctl, which runs without it.

The filter has to be set by whoever has CAP_SYS_ADMIN. That is root, in the new process before it
gives the daemon away; or an unprivileged user inside the user namespace of the daemon, where this
module is a script: ``python -I -S nosync.py PROGRAM WORDS…``. Where the filter is refused the
program runs all the same, only slower.
"""

from __future__ import annotations

import ctypes
import os
import sys

SYSCALLS = {
    "x86_64": (0xC000003E, (74, 75, 162, 306, 277)),
    "aarch64": (0xC00000B7, (82, 83, 81, 267, 84)),
}
"""By machine: its AUDIT_ARCH value (linux/audit.h), and the numbers (linux/asm/unistd.h) of
fsync, fdatasync, sync, syncfs and sync_file_range."""

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_NUMBER_OFFSET, _ARCH_OFFSET = 0, 4  # struct seccomp_data
_ALLOW, _SUCCEED = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with errno 0


class _Instruction(ctypes.Structure):
    """struct sock_filter of linux/filter.h."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def program(machine: str) -> tuple[tuple[int, int, int, int], ...]:
    """The filter for a machine of ``os.uname()``: (code, if true, if false, value) each.

    Empty for a machine that is not known. System calls of another architecture than the
    machine's own (32-bit programs) are let through.
    """
    if machine not in SYSCALLS:
        return ()
    arch, numbers = SYSCALLS[machine]
    count = len(numbers)
    return (
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_JUMP_IF_EQUAL, 0, count + 1, arch),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        *((_JUMP_IF_EQUAL, count - place, 0, number) for place, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _SUCCEED),
    )


def install(machine: str) -> bool:
    """Set the filter for this process and its children; whether that was possible."""
    instructions = program(machine)
    if not instructions:
        return False
    array = (_Instruction * len(instructions))(*(_Instruction(*one) for one in instructions))
    filter_ = _Program(len(instructions), array)
    return bool(
        ctypes.CDLL(None).prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filter_), 0, 0) == 0
    )


if __name__ == "__main__":
    install(os.uname().machine)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - what it is for
