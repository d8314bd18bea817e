"""What every sink is told of a run, letter by letter, and what happens where one cannot be."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from plp_builder.errors import ArchiveInvalid, AuthenticationFailed, SettingInvalid
from plp_builder.redaction import redactor
from publisher import results
from publisher.results import Failed, Outcome, TagOutcome, console, github, result_file
from tests.support.outcomes import DIGEST, DONE, OLD, PLANNED, REFUSED, REPOSITORY, settings

HIDE = redactor(["hunter2"])


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


def test_a_failure_of_any_kind_is_told(tmp_path: Path) -> None:
    found = settings(PLP_RESULT_FILE=tmp_path / "result.json")
    assert results.write(ArchiveInvalid("no archive"), found) == []
    assert json.loads((tmp_path / "result.json").read_text())["error"]["name"] == "archive-invalid"
