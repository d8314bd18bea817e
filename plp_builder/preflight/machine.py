"""What a machine has to offer a build: nothing here stops one, but it may be slow or weak."""

from __future__ import annotations

from plp_builder.preflight.facts import Facts
from plp_builder.preflight.finding import Finding

LOW_SPACE = 1_000_000_000
"""Bytes."""

LOW_INODES = 10_000
LOW_MEMORY = 512 * 2**20
"""Bytes."""


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Kernel, sandbox, space and memory: fine, or a warning."""
    return (_kernel(facts), _process_sandbox(facts), *_space(facts), _memory(facts))


def _kernel(facts: Facts) -> Finding:
    version = ".".join(map(str, facts.kernel))
    if facts.kernel >= (5, 11) or facts.fuse_overlayfs:
        return Finding("kernel", True, version)
    return Finding(
        "kernel",
        None,
        f"{version} has no overlay file system for rootless builds: they copy every layer",
        "Use Linux 5.11 or later, or fuse-overlayfs with /dev/fuse.",
    )


def _process_sandbox(facts: Facts) -> Finding:
    if not facts.proc_masks:
        return Finding("process sandbox", True, "possible")
    return Finding(
        "process sandbox",
        None,
        f"the container hides parts of /proc ({facts.proc_masks[0]}, …): build steps share "
        "the process ids of the builder",
        "Docker: add --security-opt systempaths=unconfined, or --privileged.",
    )


def _space(facts: Facts) -> tuple[Finding, ...]:
    found = []
    for disk in facts.disks:
        text = f"{disk.free_bytes / 1e9:.1f} GB free"
        if disk.free_inodes is not None and disk.free_inodes < LOW_INODES:
            found.append(Finding(disk.name, None, f"{disk.free_inodes} files more", "Free some."))
        elif disk.free_bytes < LOW_SPACE:
            found.append(Finding(disk.name, None, f"only {text}", "Free some space there."))
        else:
            found.append(Finding(disk.name, True, text))
    return tuple(found)


def _memory(facts: Facts) -> Finding:
    limit = facts.memory_limit
    if limit is None:
        return Finding("memory", True, "no limit of the container")
    if limit < LOW_MEMORY:
        text = f"the container is limited to {limit // 2**20} MiB"
        return Finding("memory", None, text, "Give it 512 MiB or more.")
    return Finding("memory", True, f"{limit // 2**20} MiB")
