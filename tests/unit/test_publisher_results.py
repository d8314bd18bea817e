"""What every sink is told of a run, letter by letter, and what happens where one cannot be."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

import pytest

from plp_builder.errors import ArchiveInvalid, AuthenticationFailed, SettingInvalid
from plp_builder.redaction import redactor
from publisher import results
from publisher.results import Failed, Outcome, TagOutcome, console, files, github, result_file
from publisher.settings import Settings, load

DIGEST = "sha256:" + "ab" * 32
OLD = "sha256:" + "cd" * 32
REPOSITORY = "registry.example/app"
DONE = Outcome(
    repository=REPOSITORY,
    digest=DIGEST,
    media_type="application/vnd.oci.image.index.v1+json",
    tags=(
        TagOutcome("main-abcdef0", "pushed"),
        TagOutcome("main", "pushed", OLD),
        TagOutcome("latest", "unchanged", DIGEST),
    ),
    archive=Path("/artifacts/container-image.tar"),
    archive_size=12_345_678,
    platforms=("linux/amd64", "linux/arm64"),
    sent=12_300_000,
    seconds=3.21,
    retries=2,
    dry_run=False,
    notes=("a | note <with> `markup`",),
)
PLANNED = DONE._replace(
    tags=(TagOutcome("main", "planned"),), sent=0, retries=0, dry_run=True, notes=()
)
REFUSED = AuthenticationFailed(
    "the registry | refused <b>hunter2</b>",
    why=["denied: hunter2\x1b[31m", "```", "::error::x"],
    hint="Log in.\nTry again.",
)
HIDE = redactor(["hunter2"])


def settings(**paths: Path) -> Settings:
    """Settings with the sinks at those paths, by the names of variables."""
    given = {name: str(path) for name, path in paths.items()}
    return load({"PLP_IMAGE_REPOSITORY": REPOSITORY, "PLP_BRANCH": "main", **given})


def test_console() -> None:
    assert console.success(DONE) == [
        "PUBLISHED",
        f"  image:   {REPOSITORY}",
        f"  digest:  {DIGEST}",
        "  tags:    main-abcdef0  pushed",
        f"           main          pushed (was {OLD})",
        "           latest        unchanged",
        "  systems: linux/amd64, linux/arm64",
        "  archive: /artifacts/container-image.tar (12.3 MB)",
        "  sent:    12.3 MB, 2 retried",
        "  time:    3.2s",
        f"  pull:    docker pull {REPOSITORY}@{DIGEST}",
    ]


def test_console_of_a_run_that_had_nothing_to_do() -> None:
    tags = (TagOutcome("main", "unchanged", DIGEST),)
    lines = console.success(DONE._replace(tags=tags, sent=0, retries=0), colour=True)
    assert lines[0] == "\x1b[32mPUBLISHED BEFORE\x1b[0m"
    assert "  sent:    0 B" in lines


def test_console_of_a_dry_run() -> None:
    lines = console.success(PLANNED)
    assert lines[0] == "WOULD PUBLISH (dry run: nothing was sent)"
    assert "  tags:    main  planned" in lines
    assert not any("pull" in line or "sent:" in line for line in lines)


def test_events() -> None:
    event, keys = console.success_event(DONE)
    assert event == "publication succeeded"
    assert keys["image"] == f"{REPOSITORY}@{DIGEST}"
    assert keys["tags"] == [
        {"name": "main-abcdef0", "state": "pushed", "previous": None},
        {"name": "main", "state": "pushed", "previous": OLD},
        {"name": "latest", "state": "unchanged", "previous": DIGEST},
    ]
    assert console.success_event(PLANNED)[0] == "publication planned"
    json.dumps(keys)


def test_result_file() -> None:
    assert json.loads(result_file.text(DONE, HIDE)) == {
        "schema": 1,
        "status": "published",
        "repository": REPOSITORY,
        "digest": DIGEST,
        "image": f"{REPOSITORY}@{DIGEST}",
        "media_type": "application/vnd.oci.image.index.v1+json",
        "platforms": ["linux/amd64", "linux/arm64"],
        "tags": [
            {
                "name": "main-abcdef0",
                "reference": f"{REPOSITORY}:main-abcdef0",
                "state": "pushed",
                "previous": None,
            },
            {
                "name": "main",
                "reference": f"{REPOSITORY}:main",
                "state": "pushed",
                "previous": OLD,
            },
            {
                "name": "latest",
                "reference": f"{REPOSITORY}:latest",
                "state": "unchanged",
                "previous": DIGEST,
            },
        ],
        "archive": {"path": "/artifacts/container-image.tar", "size": 12_345_678},
        "sent": 12_300_000,
        "retries": 2,
        "seconds": 3.21,
        "notes": ["a | note <with> `markup`"],
    }
    assert json.loads(result_file.text(PLANNED, HIDE))["status"] == "planned"


def test_result_file_of_a_failure() -> None:
    error = {
        "name": "authentication-failed",
        "exit_code": 2,
        "what": "the registry | refused <b><hidden></b>",
        "why": ["denied: <hidden>", "```", "::error::x"],
        "hint": "Log in. Try again.",
    }
    before = json.loads(result_file.text(Failed(REFUSED), HIDE))
    assert before == {"schema": 1, "status": "failed", "error": error}
    some = DONE._replace(tags=DONE.tags[:1])
    members = json.loads(result_file.text(Failed(REFUSED, some), HIDE))
    assert members["status"] == "failed"
    assert members["error"] == error
    assert [tag["name"] for tag in members["tags"]] == ["main-abcdef0"]


def test_result_file_holds_any_path() -> None:
    odd = DONE._replace(archive=Path(os.fsdecode(b"/a\xff\n")))
    text = result_file.text(odd, HIDE)
    assert json.loads(text)["archive"]["path"] == "/a\\udcff\n"
    assert text.isascii()


def test_outputs_for_github() -> None:
    lines = github.outputs(DONE).splitlines()
    assert lines[:2] == [f"digest={DIGEST}", f"image={REPOSITORY}@{DIGEST}"]
    name, _, delimiter = lines[2].partition("<<")
    assert name == "tags"
    assert lines[3:] == [
        f"{REPOSITORY}:main-abcdef0",
        f"{REPOSITORY}:main",
        f"{REPOSITORY}:latest",
        delimiter,
    ]
    assert github.outputs(DONE).splitlines()[2] != lines[2]


def test_summary_for_github() -> None:
    assert github.summary(DONE, HIDE).splitlines() == [
        "### Published",
        "",
        f"`{REPOSITORY}@{DIGEST}`",
        "",
        "linux/amd64, linux/arm64; archive of 12.3 MB, 12.3 MB sent in 3.2s",
        "",
        "| Tag | | Before |",
        "|---|---|---|",
        "| `main-abcdef0` | pushed |  |",
        f"| `main` | pushed | `{OLD}` |",
        f"| `latest` | unchanged | `{DIGEST}` |",
        "",
        r"- a \| note &lt;with&gt; \`markup\`",
    ]
    assert "Would publish" in github.summary(PLANNED, HIDE)


def test_summary_of_a_failure_shows_markup_as_text() -> None:
    assert github.summary(Failed(REFUSED), HIDE).splitlines() == [
        r"### Not published: authentication\-failed",
        "",
        r"the registry \| refused &lt;b&gt;&lt;hidden&gt;&lt;/b&gt;",
        "",
        "```text",
        "denied: <hidden>",
        "``",
        "::error::x",
        "```",
        "",
        "Next: Log in. Try again.",
        "",
    ]


def test_every_sink_is_told(tmp_path: Path) -> None:
    for name in ("output", "summary"):
        (tmp_path / name).write_text("before\n")
    found = settings(
        PLP_RESULT_FILE=tmp_path / "result.json",
        PLP_RESULT_IMAGE_DIGEST_FILE=tmp_path / "digest",
        PLP_RESULT_IMAGE_URL_FILE=tmp_path / "url",
        GITHUB_OUTPUT=tmp_path / "output",
        GITHUB_STEP_SUMMARY=tmp_path / "summary",
    )
    results.check(found)
    assert results.write(DONE, found) == []
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "published"
    # Tekton takes the files as they are, and puts the digest behind the URL.
    assert (tmp_path / "digest").read_text() == DIGEST
    assert (tmp_path / "url").read_text() == f"{REPOSITORY}:main-abcdef0"
    assert (tmp_path / "output").read_text().startswith("before\ndigest=")
    assert (tmp_path / "summary").read_text().startswith("before\n### Published")
    assert len(list(tmp_path.iterdir())) == 5
    assert stat.S_IMODE((tmp_path / "digest").stat().st_mode) == 0o644


@pytest.mark.parametrize("ended", [REFUSED, Failed(REFUSED, DONE), PLANNED])
def test_nobody_takes_an_older_image_for_this_one(
    tmp_path: Path, ended: AuthenticationFailed | Failed | Outcome
) -> None:
    found = settings(
        PLP_RESULT_FILE=tmp_path / "result.json",
        PLP_RESULT_IMAGE_DIGEST_FILE=tmp_path / "digest",
        PLP_RESULT_IMAGE_URL_FILE=tmp_path / "url",
        GITHUB_OUTPUT=tmp_path / "output",
    )
    assert results.write(DONE, found) == []
    outputs = (tmp_path / "output").read_text()
    assert results.write(ended, found) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output", "result.json"]
    assert (tmp_path / "output").read_text() == outputs
    assert json.loads((tmp_path / "result.json").read_text())["status"] != "published"


def test_a_sink_that_cannot_be_written_is_a_warning_and_the_others_are_told(tmp_path: Path) -> None:
    found = settings(
        PLP_RESULT_FILE=tmp_path / "missing" / "result\x1b[m.json",
        PLP_RESULT_IMAGE_DIGEST_FILE=tmp_path / "digest",
        GITHUB_OUTPUT=tmp_path,
    )
    assert results.write(DONE, found) == [
        f"PLP_RESULT_FILE: {tmp_path}/missing/result.json could not be written: "
        "No such file or directory",
        f"GITHUB_OUTPUT: {tmp_path} could not be written: Is a directory",
    ]
    assert (tmp_path / "digest").read_text() == DIGEST


def test_files_that_could_not_be_are_refused_before_the_push(tmp_path: Path) -> None:
    found = settings(
        PLP_RESULT_FILE=tmp_path,
        PLP_RESULT_IMAGE_URL_FILE=tmp_path / "missing" / "url",
        PLP_RESULT_IMAGE_DIGEST_FILE=tmp_path / "fine",
    )
    with pytest.raises(SettingInvalid) as caught:
        results.check(found)
    assert caught.value.why == (
        f"PLP_RESULT_FILE: {tmp_path} is a directory; name a file",
        f"PLP_RESULT_IMAGE_URL_FILE: there is no directory {tmp_path}/missing",
    )
    # Once is enough; of any other failure the files cannot tell, which is worth a warning.
    assert results.write(caught.value, found) == []
    assert len(results.write(REFUSED, found)) == 1


SINKS = (
    "PLP_RESULT_FILE",
    "PLP_RESULT_IMAGE_DIGEST_FILE",
    "PLP_RESULT_IMAGE_URL_FILE",
    "GITHUB_OUTPUT",
    "GITHUB_STEP_SUMMARY",
)


class Inputs(NamedTuple):
    """A directory with everything that a run reads, and what each file held at first."""

    root: Path
    environ: dict[str, Path]
    held: dict[Path, str]

    def refuse(self, **sinks: Path) -> tuple[str, ...]:
        """What is said of the sinks before a push; whatever is tried then, nothing is lost."""
        found = settings(**{**self.environ, **sinks})
        with pytest.raises(SettingInvalid) as caught:
            results.check(found)
        for ended in (DONE, PLANNED, REFUSED, caught.value):
            results.write(ended, found)
        assert {path: path.read_text() for path in self.held} == self.held
        return caught.value.why


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    names = ("out/image.tar", "docker/config.json", "auth.json", "ca/own.pem", "ca/other.pem")
    held = {}
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        held[path] = name
    environ = {
        "PLP_ARTIFACT_PATH": tmp_path / "out/image.tar",
        "DOCKER_CONFIG": tmp_path / "docker",
        "REGISTRY_AUTH_FILE": tmp_path / "auth.json",
        "PLP_REGISTRY_CA_PATH": tmp_path / "ca",
    }
    return Inputs(tmp_path, environ, held)


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize(
    ("name", "read_for"),
    [
        ("out/image.tar", "PLP_ARTIFACT_PATH"),
        ("docker/config.json", "DOCKER_CONFIG"),
        ("auth.json", "REGISTRY_AUTH_FILE"),
        ("ca/other.pem", "PLP_REGISTRY_CA_PATH"),
    ],
)
def test_nothing_that_is_read_is_written_to(
    inputs: Inputs, sink: str, name: str, read_for: str
) -> None:
    path = inputs.root / name
    assert inputs.refuse(**{sink: path}) == (
        f"{sink}: {path} is read for {read_for}; name another file",
    )


def test_other_spellings_of_what_is_read(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, root = inputs.root / "out/image.tar", inputs.root
    (root / "link").symlink_to("out/image.tar")
    (root / "link-of-link").symlink_to(root / "link")
    (root / "hard").hardlink_to(archive)
    (root / "elsewhere").symlink_to("out")
    monkeypatch.chdir(root)
    spellings = ("out/../out/image.tar", "link-of-link", "hard", "elsewhere/image.tar")
    for spelling in map(Path, spellings):
        (line,) = inputs.refuse(PLP_RESULT_FILE=spelling)
        assert "is read for PLP_ARTIFACT_PATH" in line
        inputs.environ["PLP_ARTIFACT_PATH"] = spelling
        inputs.refuse(GITHUB_OUTPUT=archive)
        inputs.environ["PLP_ARTIFACT_PATH"] = archive


def test_results_may_lie_beside_what_is_read(inputs: Inputs) -> None:
    for number, directory in enumerate(("out", "docker", "ca")):
        path = inputs.root / directory / f"result-{number}.json"
        path.write_text("of the last run")
        found = settings(**inputs.environ, PLP_RESULT_FILE=path)
        results.check(found)
        assert results.write(DONE, found) == []


def test_an_archive_is_kept_where_its_directory_is_named_and_results_lie_beside_it(
    inputs: Inputs,
) -> None:
    directory = inputs.environ["PLP_ARTIFACT_PATH"] = inputs.root / "out"
    assert len(inputs.refuse(PLP_RESULT_FILE=directory / "image.tar")) == 1
    (directory / "result.json").write_text("of the last run")
    beside = settings(**inputs.environ, PLP_RESULT_FILE=directory / "result.json")
    results.check(beside)
    assert results.write(DONE, beside) == []
    # What the directory turned out to mean is known in the end.
    other = inputs.root / "auth.json"
    beside = settings(PLP_RESULT_FILE=other)
    assert results.write(DONE._replace(archive=other), beside) == [
        f"PLP_RESULT_FILE: {other} is read for PLP_ARTIFACT_PATH; name another file"
    ]
    assert other.read_text() == "auth.json"


def test_an_archive_that_is_not_there_yet_is_not_made_of_a_result(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    found = settings(
        PLP_ARTIFACT_PATH=tmp_path / "image.tar",
        PLP_RESULT_FILE=tmp_path / "elsewhere" / "image.tar",
    )
    with pytest.raises(SettingInvalid):
        results.check(found)
    assert len(results.write(ArchiveInvalid("there is none"), found)) == 1
    assert not (tmp_path / "image.tar").exists()


def test_results_are_not_written_over_one_another(inputs: Inputs) -> None:
    inputs.held[inputs.root / "output"] = "before"
    (inputs.root / "output").write_text("before")
    one, two = inputs.root / "output", inputs.root / "docker" / ".." / "output"
    assert inputs.refuse(GITHUB_OUTPUT=one, PLP_RESULT_FILE=two) == (
        f"PLP_RESULT_FILE: {two} is also what GITHUB_OUTPUT names; name another file",
        f"GITHUB_OUTPUT: {one} is also what PLP_RESULT_FILE names; name another file",
    )
    new = inputs.root / "new"
    assert len(inputs.refuse(PLP_RESULT_FILE=new, PLP_RESULT_IMAGE_URL_FILE=new)) == 2
    assert not new.exists()


def test_what_has_no_end_may_get_several_results(tmp_path: Path) -> None:
    """As where somebody wants to see them all in a log, be it a file."""
    nowhere = Path("/dev/null")
    results.check(settings(PLP_RESULT_FILE=nowhere, GITHUB_OUTPUT=nowhere))
    with (tmp_path / "log").open("w") as file:
        shown = Path(f"/proc/self/fd/{file.fileno()}")
        found = settings(GITHUB_OUTPUT=shown, PLP_RESULT_FILE=shown)
        file.write("before\n")
        file.flush()
        results.check(found)
        assert results.write(DONE, found) == []
    text = (tmp_path / "log").read_text()
    assert text.startswith("before\n{")
    assert "digest=" in text


def test_files_that_cannot_be_looked_at_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    found = settings(PLP_RESULT_FILE=tmp_path / ("x" * 5000), GITHUB_OUTPUT=tmp_path / "loop")
    with pytest.raises(SettingInvalid) as caught:
        results.check(found)
    long, loop = caught.value.why
    assert long.startswith("PLP_RESULT_FILE: /")
    assert long.endswith("… cannot be looked at: File name too long")
    assert loop.startswith("GITHUB_OUTPUT: ")
    assert loop.endswith("loop cannot be looked at: Too many levels of symbolic links")
    assert results.write(caught.value, found) == []
    assert len(results.write(DONE, found)) == 2


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result"
    files.put(path, "old")
    inode = path.stat().st_ino

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for name in ("new", "result"):
        with pytest.raises(OSError, match="No space"):
            files.put(tmp_path / name, "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]
    assert path.read_text() == "old"
    monkeypatch.undo()
    files.put(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino != inode


def test_a_file_that_cannot_be_replaced_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is a mount of its own: rename(2) says EBUSY."""
    path = tmp_path / "termination-log"
    path.write_text("a longer text than the new one")

    def busy(self: Path, target: Path) -> Path:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    inode = path.stat().st_ino
    files.put(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino == inode
    assert [entry.name for entry in tmp_path.iterdir()] == ["termination-log"]


@pytest.mark.parametrize("old", ["", "old", "an older text that is longer than the new one"])
def test_a_write_that_ends_in_the_middle_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str
) -> None:
    path = tmp_path / "result"
    path.write_text(old)
    write = os.write

    def filling(descriptor: int, data: bytes) -> int:
        if len(data) < len("a new text"):
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:4])

    def busy(self: Path, target: Path) -> Path:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "write", filling)
    for how in (files.put, files.append):
        with pytest.raises(OSError, match="No space"):
            how(path, "a new text")
    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(files, "_replace", lambda path, _text: path.replace(path))
    with pytest.raises(OSError, match="No space"):
        files.put(path, "a new text")
    assert path.read_text() == old


def test_a_file_that_cannot_be_taken_away_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digest"
    path.write_text("sha256:…")

    def busy(self: Path, missing_ok: bool = False) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "unlink", busy)
    files.remove(path)
    assert path.read_text() == ""


def test_what_is_no_ordinary_file_stays_what_it_is(tmp_path: Path) -> None:
    files.put(Path("/dev/null"), "text")
    assert not Path("/dev/null").is_file()
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("")
    link.symlink_to(target)
    files.put(link, "text")
    assert link.is_symlink()
    assert target.read_text() == "text"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
    files.remove(link)
    assert link.is_symlink()
    assert not target.exists()
    files.put(link, "again")
    assert target.read_text() == "again"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        files.put(tmp_path / "pipe", "nobody reads this")


def test_a_failure_of_any_kind_is_told(tmp_path: Path) -> None:
    found = settings(PLP_RESULT_FILE=tmp_path / "result.json")
    assert results.write(ArchiveInvalid("no archive"), found) == []
    assert json.loads((tmp_path / "result.json").read_text())["error"]["name"] == "archive-invalid"
