"""The filter that answers fsync at once, run by an interpreter of classic BPF written here."""

from __future__ import annotations

import pytest

from plp_builder.buildkit.nosync import SYSCALLS, program

ALLOW, SUCCEED = 0x7FFF0000, 0x00050000


def run(machine: str, arch: int, number: int) -> int:
    """What the kernel would decide: struct seccomp_data is the number, then the architecture."""
    data = {0: number, 4: arch}
    instructions = program(machine)
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == 0x20:
            accumulator = data[value]
        elif code == 0x15:
            at += if_true if accumulator == value else if_false
        else:
            return value


@pytest.mark.parametrize("machine", SYSCALLS)
def test_only_the_named_calls_are_answered(machine: str) -> None:
    arch, numbers = SYSCALLS[machine]
    answered = {number for number in range(512) if run(machine, arch, number) == SUCCEED}
    assert answered == set(numbers)
    assert {run(machine, arch, number) for number in range(512)} == {ALLOW, SUCCEED}


def test_calls_of_another_architecture_are_let_through() -> None:
    """Number 75 of 32-bit x86 is setrlimit."""
    assert run("x86_64", 0x40000003, 75) == ALLOW


def test_an_unknown_machine_has_no_filter() -> None:
    assert program("riscv64") == ()
