"""Stand-ins for base images, made from the distribution's packages, without any registry."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scripts.set_up import packages
from scripts.set_up.step import cache_home, content_key
from tests.support import machine

_SUITE = "trixie"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_APPLETS: tuple[str, ...] = tuple(
    """
    ash awk basename cat chmod chown cp cut date dd df dirname echo env expr false find grep
    gzip head hostname id kill ln ls md5sum mkdir mkfifo mktemp mv nohup od printf ps pwd rm
    rmdir sed seq setsid sh sha256sum sleep sort stat tail tar tee test touch tr true uname
    uniq wc wget which xargs yes
    """.split()  # noqa: SIM905 - a list of fifty quoted names reads worse
)
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"


def _debian_rootfs() -> Path:
    """A tar of Debian's smallest system with certificates, without device nodes.

    Device nodes cannot be made where a rootless builder unpacks the layer.
    """
    target = cache_home() / "base-images" / f"debian-{_SUITE}"
    return machine.made_once(target, _make_debian) / "rootfs.tar"


def _make_debian(work: Path) -> None:
    if os.geteuid() != 0:
        machine.missing("root (debootstrap makes the Debian base image once)")
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        found = packages.debian_mirror()
        mirror = [found] if found else []
        options = ["--variant=minbase", "--include=ca-certificates", _SUITE, scratch]
        _quietly([machine.command("debootstrap"), *options, *mirror])
        for emptied in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
            for path in sorted((Path(scratch) / emptied).rglob("*")):
                if path.is_file():
                    path.unlink()
        # mkdtemp's 0700 would become the mode of the image's root directory.
        Path(scratch).chmod(0o755)
        pack = ["tar", "--numeric-owner", "--sort=name", "--exclude=./dev/*", "-C", scratch]
        _quietly([*pack, "-cf", str(work / "rootfs.tar"), "."])


def static_busybox() -> Path:
    """The machine's static busybox, or the end of the test."""
    path = Path(machine.command("busybox"))
    with path.open("rb") as file:
        if b"/ld-" in file.read(4096):
            machine.missing("a static busybox (package busybox-static)")
    return path


def busybox_rootfs() -> Path:
    """A tar with a static busybox, its commands, and root's account."""
    target = cache_home() / "base-images" / f"busybox-{content_key(static_busybox())}"
    return machine.made_once(target, _make_busybox) / "rootfs.tar"


def _make_busybox(work: Path) -> None:
    tree = work / "tree"
    for directory in ("bin", "etc", "root", "tmp", "usr/bin", "var"):
        (tree / directory).mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    shutil.copyfile(static_busybox(), tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    for applet in _APPLETS:
        (tree / "bin" / applet).symlink_to("busybox")
    (tree / "etc/passwd").write_text(_PASSWD)
    (tree / "etc/group").write_text(_GROUP)
    with tarfile.open(work / "rootfs.tar", "w") as tar:
        tar.add(tree, arcname=".", filter=_owned_by_root)
    shutil.rmtree(tree)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = "root"
    return member


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A name on docker.io and what stands in for it."""

    repository: str
    tags: tuple[str, ...]
    rootfs: Callable[[], Path]
    command: str

    def push(self, address: str) -> None:
        """Push the image of one layer to the registry at ``address``."""
        crane = machine.command("crane")
        platform = f"linux/{_architecture()}"
        first, *others = (f"{address}/{self.repository}:{tag}" for tag in self.tags)
        base = [crane, "append", "--insecure", "--oci-empty-base", "-f", str(self.rootfs())]
        _quietly([*base, "-t", first])
        options = ["--set-platform", platform, "--cmd", self.command, "--env", _PATH]
        _quietly([crane, "mutate", "--insecure", first, *options, "-t", first])
        for other in others:
            _quietly([crane, "copy", "--insecure", first, other])


def _architecture() -> str:
    machine_name = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine_name, machine_name)


def _quietly(argv: list[str]) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def _buildkit_rootfs(name: str) -> Path:
    """A tar with the programs of moby/buildkit's rootless image at their places in it."""
    tools = machine.tools(name)
    runc = Path(machine.command("runc"))
    key = content_key(tools.directory.name, runc)
    target = cache_home() / "base-images" / f"buildkit-{key}"

    def make(work: Path) -> None:
        with tarfile.open(work / "rootfs.tar", "w") as tar:
            for program in ("buildctl", "buildkitd", "rootlesskit"):
                tar.add(tools[program], arcname=f"usr/bin/{program}", filter=_owned_by_root)
            tar.add(runc.resolve(), arcname="usr/bin/buildkit-runc", filter=_owned_by_root)

    return machine.made_once(target, make) / "rootfs.tar"


def buildkit_images() -> tuple[BaseImage, ...]:
    """moby/buildkit's rootless images of both versions, made of the machine's own tools."""
    return tuple(
        BaseImage(
            "moby/buildkit",
            (f"{machine.tools(name).version}-rootless",),
            partial(_buildkit_rootfs, name),
            "sh",
        )
        for name in ("current", "compat")
    )


def buildkit_key() -> str:
    """Changes with the tools that the stand-ins of BuildKit's images hold, and with the rest."""
    tools = [machine.tools(name).directory.name for name in ("current", "compat")]
    return content_key(key(), *tools, Path(machine.command("runc")))


IMAGES = (
    BaseImage("library/debian", ("trixie-slim", "latest"), _debian_rootfs, "bash"),
    BaseImage("library/busybox", ("latest", "stable"), busybox_rootfs, "sh"),
    BaseImage("library/alpine", ("latest", "3"), busybox_rootfs, "/bin/sh"),
)


def key() -> str:
    """Changes with this recipe, the busybox and the tool that makes the images."""
    recipe = inspect.getsource(sys.modules[__name__])
    return content_key(recipe, static_busybox(), str(_debian_rootfs().stat().st_mtime_ns))
