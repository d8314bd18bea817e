"""Whether a user namespace may mount a procfs, read from mountinfo."""

from __future__ import annotations

from plp_builder.preflight.facts import parse_proc_masks

PLAIN = "22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw\n"
ROOT = "28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"


def over(point: str) -> str:
    return f"90 22 0:5 /null {point} rw,nosuid - tmpfs tmpfs rw,size=65536k\n"


def test_a_bare_proc_hides_nothing() -> None:
    assert parse_proc_masks(ROOT + PLAIN) == ()


def test_what_a_container_engine_masks_is_named() -> None:
    text = ROOT + PLAIN + over("/proc/kcore") + over("/proc/scsi")
    assert parse_proc_masks(text) == ("/proc/kcore", "/proc/scsi")


def test_mounts_on_points_that_are_always_empty_are_harmless() -> None:
    assert parse_proc_masks(PLAIN + over("/proc/sys/fs/binfmt_misc")) == ()


def test_a_read_only_proc_is_not_visible_in_full() -> None:
    assert parse_proc_masks(PLAIN.replace(" rw,", " ro,")) == ("/proc",)


def test_without_any_proc_there_is_no_sandbox() -> None:
    assert parse_proc_masks(ROOT) == ("/proc",)


def test_a_part_of_proc_bound_over_it_is_not_proc() -> None:
    assert parse_proc_masks(PLAIN.replace(" / /proc ", " /sys /proc ")) == ("/proc",)


def test_a_proc_mounted_over_a_masked_one_counts_alone() -> None:
    assert parse_proc_masks(PLAIN + over("/proc/kcore") + PLAIN) == ()


def test_lines_that_are_no_mounts_are_passed_over() -> None:
    assert parse_proc_masks("garbage\n\n" + PLAIN) == ()
