"""Publications that are stopped, stall or meet passing faults, and the next one."""

from __future__ import annotations

import os
import signal
import tarfile
from pathlib import Path

import pytest

from tests.support import layouts, processes, publisher
from tests.support.publisher import (
    NAMES,
    digest_of,
    end,
    environment,
    image,
    run,
    scripted_env,
    started,
    wait_for,
    write,
)
from tests.support.scripted_registry import FAULTS, ScriptedRegistry
from tests.support.skopeo import Skopeo

ENDS_WITHIN = 10.0
MIB = 1 << 20


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return image(tmp_path)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Large enough that it can be stopped in the middle."""
    return write(tmp_path / "large.tar", layouts.image_files(layers=[os.urandom(8 * MIB)]))


def test_a_verification_can_be_stopped(
    scripted: ScriptedRegistry, archive: Path, tmp_path: Path
) -> None:
    """The archive has a blob of nothing but zeros, which takes seconds to read."""
    with tarfile.open(archive) as tar:
        last = tar.getmembers()[-1]
    huge = tarfile.TarInfo(f"blobs/sha256/{'0' * 64}")
    huge.size = 4 << 30
    with archive.open("r+b") as file:
        at = file.seek(-(-(last.offset_data + last.size) // 512) * 512)
        file.write(huge.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(at + 512 + huge.size + 1024)
    log = tmp_path / "log"
    with started(environment(archive, f"{scripted.address}/app", scripted_env()), log) as process:
        wait_for(lambda: b"plp-container-image-publisher" in log.read_bytes(), process)
        code, seconds = end(process, signal.SIGTERM)
    assert code == 143, log.read_text()
    assert seconds < ENDS_WITHIN
    assert scripted.seen == []


def test_a_second_run_completes_what_a_first_one_left(
    scripted: ScriptedRegistry, archive: Path, tmp_path: Path
) -> None:
    scripted.fail("manifest-put", FAULTS["403"], 1, where="manifests/main-")
    env = environment(archive, f"{scripted.address}/app", scripted_env())
    first = run(env, tmp_path)
    assert first.code == 2, first.stderr
    assert set(scripted.tags("app")) == {"1.2.3"}
    scripted.seen.clear()
    second = run(env, tmp_path)
    assert second.code == 0, second.stderr
    assert scripted.tags("app") == dict.fromkeys(NAMES, digest_of(archive))
    assert not [seen for seen in scripted.seen if seen.method in {"POST", "PATCH"}]


def test_passing_faults_are_waited_for_and_told(
    scripted: ScriptedRegistry, archive: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    scripted.fail("upload-data", FAULTS["503"])
    scripted.fail("manifest-put", FAULTS["reset"], 1, where="manifests/latest")
    env = environment(archive, f"{scripted.address}/app", scripted_env(PATH=skopeo.path))
    result = run(env, tmp_path)
    assert result.code == 0, result.stderr
    assert result.stderr.count("trying again") == 2
    assert scripted.tags("app") == dict.fromkeys(NAMES, digest_of(archive))


def test_an_upload_that_stalls_is_begun_again(
    scripted: ScriptedRegistry, large: Path, tmp_path: Path
) -> None:
    scripted.fail("upload-data", FAULTS["stall"])
    more = scripted_env(PLP_STALL_TIMEOUT="1")
    result = run(environment(large, f"{scripted.address}/app", more), tmp_path)
    assert result.code == 0, result.stderr
    assert "nothing moves" in result.stderr
    assert scripted.tags("app") == dict.fromkeys(NAMES, digest_of(large))


def test_the_time_limit_ends_a_push(
    scripted: ScriptedRegistry, large: Path, tmp_path: Path
) -> None:
    scripted.fail("upload-data", FAULTS["stall"], None)
    more = scripted_env(PLP_TIMEOUT="2")
    result = run(environment(large, f"{scripted.address}/app", more), tmp_path)
    assert result.code == 1
    assert "ERROR timed-out: the publication did not end within PLP_TIMEOUT (2 s)" in result.stderr
    assert scripted.tags("app") == {}


def test_an_archive_that_changes_while_it_is_pushed_is_told(
    scripted: ScriptedRegistry, large: Path, tmp_path: Path
) -> None:
    scripted.fail("upload-start", FAULTS["stall"], 1)
    env = environment(large, f"{scripted.address}/app", scripted_env(PLP_STALL_TIMEOUT="3"))
    log = tmp_path / "log"
    with started(env, log) as process:
        wait_for(lambda: any(seen.answer == "stall" for seen in scripted.seen), process)
        with large.open("r+b") as file:
            file.seek(3 * MIB)
            file.write(b"other bytes")
        assert process.wait(publisher.PATIENCE) == 3, log.read_text()
    assert "changed while it was pushed" in log.read_text()
    assert scripted.tags("app") == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_and_the_next_one_completes_it(
    number: signal.Signals, scripted: ScriptedRegistry, large: Path, tmp_path: Path
) -> None:
    scripted.fail("upload-data", FAULTS["stall"], 1)
    for name in ("home", "tmp", "run", "cwd"):
        (tmp_path / name).mkdir()
    places = {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    env = environment(large, f"{scripted.address}/app", {**scripted_env(), **places})
    log = tmp_path / "log"
    with started(env, log) as process:
        wait_for(lambda: any(seen.answer == "stall" for seen in scripted.seen), process)
        below = processes.below([process.pid])
        assert any("skopeo" in each.command for each in below.values())
        code, seconds = end(process, number)
        wait_gone(set(below))
    expected = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    assert code == expected, log.read_text()
    assert seconds < ENDS_WITHIN
    for name in places.values():
        assert list(Path(name).rglob("*")) == []
    assert scripted.tags("app") == {}
    result = run(env, tmp_path)
    assert result.code == 0, result.stderr
    assert scripted.tags("app") == dict.fromkeys(NAMES, digest_of(large))


def wait_gone(pids: set[int]) -> None:
    assert processes.until(lambda: not processes.below(pids))
