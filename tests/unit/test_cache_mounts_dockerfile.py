"""Which cache mounts a Dockerfile has; the cases were held against BuildKit's own parser."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from plp_builder.cache.mounts import model, recipe
from plp_builder.cache.mounts.model import Mount

AMD64 = {"TARGETARCH": "amd64", "TARGETPLATFORM": "linux/amd64"}
ARM64 = {"TARGETARCH": "arm64", "TARGETPLATFORM": "linux/arm64"}


def ids(text: str, *, args: dict[str, str] | None = None) -> list[str]:
    """The ids of all mounts of which everything can be told."""
    found = model.find(text.encode(), args or {}, (AMD64,))
    assert found.problems == ()
    return [mount.id for mount in found.mounts]


def one(options: str) -> Mount:
    """The only mount of a step with these options."""
    (mount,) = model.find(f"FROM a\nRUN --mount={options} true".encode(), {}, ({},)).mounts
    return mount


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN --mount=type=cache,target=/a make", ["/a"]),
        ("run\t--mount=TYPE=Cache,dst=/a make", ["/a"]),
        ("RUN --mount=type=cache,target=/a --mount=type=cache,id=b,target=/b make", ["/a", "b"]),
        ("RUN --mount=type=cache,target=/a\nRUN --mount=type=cache,target=/a", ["/a"]),
        ("RUN --network=none --mount=type=cache,target=/a make", ["/a"]),
        ("RUN --mount=type=cache,target=/a//b/../c/ make", ["/a/c"]),
        ("RUN --mount=type=cache,target=//a make", ["/a"]),
        ("RUN --mount=type=cache,target=./a make", ["a"]),
        ("RUN --mount=type=cache,id=,target=/a make", ["/a"]),
        ("RUN --mount=type=cache,'id=a b',target=/a make", ["a b"]),
        ("RUN --mount='type=cache,\"id=a,b\",target=/a' make", ["a,b"]),
        ("RUN --mount=type=cache,id=a\\ b,target=/a make", ["a b"]),
        ("RUN --mount=type=cache,id='\"a\"',target=/a make", []),
        ("RUN --mount=type=bind,target=/a --mount=type=secret,id=b make", []),
        ("RUN --mount=target=/a make", []),
        ("RUN make --mount=type=cache,target=/a", []),
        ("RUN -- --mount=type=cache,target=/a", []),
        ("COPY --mount=type=cache,target=/a . .", []),
        ("# RUN --mount=type=cache,target=/a make", []),
        ("RUN --mount=type=cache,\\\n  target=/a make", ["."]),
        ("RUN --mount=type=cache,\\\ntarget=/a make", ["/a"]),
        ("RUN \\\n # why\n\n  --mount=type=cache,target=/a \\\n  make", ["/a"]),
        ("RUN \\\r\n  --mount=type=cache,target=/a \\\r\n  make\r\n", ["/a"]),
        ("RUN true \\\nRUN --mount=type=cache,target=/a make", []),
        ("RUN true \\\\\nRUN --mount=type=cache,target=/a make", ["/a"]),
        ("RUN --mount=type=cache,target=/a \\", ["/a"]),
        ("RUN --mount=type=cache,target=/a,uid=x make", None),
        ("RUN --mount=type=cache,target=/a,sharing=some make", None),
        ("RUN --mount=type=cache,target=/é make", None),
    ],
)
def test_a_step(text: str, expected: list[str] | None) -> None:
    found = model.find(f"FROM a\n{text}".encode(), {}, (AMD64,))
    assert [mount.id for mount in found.mounts] == (expected or [])
    assert bool(found.problems) == (expected is None)


@pytest.mark.parametrize(
    "heredoc",
    [
        "RUN <<EOF\n{}\nEOF",
        "RUN <<-'EOF'\n{}\n\tEOF",
        'RUN cat << "EOF" > /x\n{}\nEOF',
        "RUN cat <<A 3<<EOF\nA\n{}\nEOF",
        "COPY <<EOF /x\n{}\nEOF",
        "ADD --chmod=644 <<EOF /x\n{}\nEOF",
        "ONBUILD RUN <<EOF\n{}\nEOF",
        "RUN [ -e x ] && <<EOF\n{}\nEOF",
    ],
)
def test_what_a_heredoc_holds_is_no_step(heredoc: str) -> None:
    step = "RUN --mount=type=cache,target=/{} make"
    text = "\n".join(("FROM a", heredoc.format(step.format("in")), step.format("after")))
    assert ids(text) == ["/after"]


@pytest.mark.parametrize(
    "line", ["RUN cat <<<EOF", "RUN a<<EOF", 'RUN ["cat", "<<EOF"]', "CMD <<E"]
)
def test_what_is_no_heredoc_swallows_no_step(line: str) -> None:
    assert ids(f"FROM a\n{line}\nRUN --mount=type=cache,target=/a make") == ["/a"]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("# escape=`\n", ["/a"]),
        ("\ufeff# syntax=docker/dockerfile:1\n#Escape = `\n", ["/a"]),
        ("# a comment\n# escape=`\n", ["."]),
        ("FROM b\n# escape=`\n", ["."]),
    ],
)
def test_another_escape_character(head: str, expected: list[str]) -> None:
    step = "RUN --mount=type=cache,`\ntarget=/a make"
    assert ids(f"{head}FROM a\n{step}") == expected


@pytest.mark.parametrize(
    ("before", "name", "expected"),
    [
        ("FROM a\nARG X=1", "$X", "1"),
        ("FROM a\nARG X=1", "a-${X}b", "a-1b"),
        ("FROM a\nARG X='1 2'", "${X}", "1 2"),
        ("FROM a\nARG X=1 Y=2$X", "$Y", "21"),
        ("ARG X=1\nFROM a\nARG X", "$X", "1"),
        ("ARG X=1\nFROM scratch", "x$X", "x"),
        ("FROM a\nARG X=1", "\\$X", "$X"),
        ("FROM a\nENV X 1", "$X", "1"),
        ("FROM a\nENV X=1\nENV X=2 Y=$X", "$X$Y", "21"),
        ("FROM a AS b\nENV X=1\nFROM B", "$X", "1"),
        ("FROM scratch", "${X:-1}", "1"),
        ("FROM scratch\nENV X=", "${X:-1}${X-2}", "1"),
        ("FROM a\nENV X=1", "${X:+y}${X+z}", "yz"),
        ("FROM scratch", "${X:-${Y:-1}}", "1"),
        ("FROM a\nARG TARGETARCH", "$TARGETARCH", "amd64"),
        ("FROM a\nARG GIVEN=1", "$GIVEN", "$mine"),
        ("ARG GIVEN\nFROM a\nARG GIVEN", "$GIVEN", "$mine"),
    ],
)
def test_variables(before: str, name: str, expected: str) -> None:
    text = f"{before}\nRUN --mount=type=cache,target=/a,id='{name}' make"
    escaped = text.replace("\\$", "\\\\$")
    assert ids(escaped, args={"GIVEN": "$mine"}) == [expected]


@pytest.mark.parametrize(
    "lines",
    [
        ["FROM a", "$X"],
        ["FROM a", "ENV Y=$X", "$Y"],
        ["FROM a AS b", "FROM b", "$X"],
        ["FROM a", "ARG X=1", "${X#y}"],
        ["FROM a", "${X"],
        ["FROM $A", "$X"],
        ["FROM scratch", "$1"],
    ],
)
def test_what_cannot_be_told_is_said(lines: list[str]) -> None:
    text = "\n".join((*lines[:-1], f"RUN --mount=type=cache,target=/a,id={lines[-1]} make"))
    found = model.find(text.encode(), {}, ({},))
    assert found.mounts == ()
    assert len(found.problems) == 1
    assert lines[-1] in found.problems[0]


def test_each_platform_has_mounts_of_its_own() -> None:
    text = b"FROM a\nARG TARGETARCH\nRUN --mount=type=cache,id=x-$TARGETARCH,target=/a make"
    found = model.find(text, {}, (AMD64, ARM64))
    assert [mount.id for mount in found.mounts] == ["x-amd64", "x-arm64"]


def test_options() -> None:
    assert one("type=cache,target=/a,sharing=Locked,ro") == Mount("/a", sharing="locked")
    assert one("type=cache,target=/a,uid=7") == Mount("/a", 7, 0, 0o755)
    assert one("type=cache,target=/a,gid=7,mode=1770") == Mount("/a", 0, 7, 0o770)
    assert one("type=cache,target=/a,from=scratch,source=/") == Mount("/a")
    assert one("type=cache,target=/a,from=b,source=c") == Mount("/a", source="b/c")


def test_a_key_tells_directories_apart_and_nothing_else() -> None:
    key = Mount("a").key("")
    assert key == Mount("a", sharing="locked").key("")
    others = [Mount("b"), Mount("a", 0, 0, 0o755), Mount("a", source="/x")]
    assert len({key, Mount("a").key("b"), *(other.key("") for other in others)}) == 5


@given(
    some.text()
    | some.lists(
        some.sampled_from(
            [
                "RUN",
                "--mount=",
                "type=cache",
                "<<E",
                "\\",
                "\n",
                "${",
                "'",
                '"',
                "FROM a\n",
                " ",
                "ARG X=",
                "ENV ",
                "# escape=`\n",
                "target=/a,",
            ]
        )
    ).map("".join)
)
def test_no_text_makes_it_fail(text: str) -> None:
    model.find(text.encode("utf-8", "replace"), {"X": "1"}, (AMD64,))


def test_what_is_no_text_has_no_mounts() -> None:
    assert model.find(b"\xff RUN --mount=type=cache,target=/a", {}, ({},)) == model.Found()


NAMES = some.text(some.characters(min_codepoint=32, max_codepoint=126), min_size=1)
DIRECTORIES = some.tuples(
    some.integers(0, 2**32 - 1), some.integers(0, 2**32 - 1), some.integers(0, 0o777)
) | some.just((None, None, None))


@given(NAMES, DIRECTORIES, some.sampled_from(["", "shared", "private", "locked"]))
def test_a_generated_step_means_the_very_same_mount(
    name: str, directory: tuple[int, int, int], sharing: str
) -> None:
    mount = Mount(name, *directory, sharing=sharing)
    (task,) = recipe.tasks([mount], "token")
    step = recipe._step(task, ["tar", "--list"], "")
    assert model.find(f"FROM scratch\n{step}\n".encode(), {}, ({},)).mounts == (mount,)


def test_a_request_keeps_to_names_of_its_own(tmp_path: Path) -> None:
    """The daemon's copies of a build's context are not touched."""
    work, tool, place = (tmp_path / name for name in ("work", "tool", "place"))
    work.mkdir()
    tasks = recipe.tasks([Mount("a"), Mount("b")], "token", places={Mount("b"): place})
    request = recipe.unpacking(tasks, ["tar"], work, tool, "space")
    names = [name for name, _ in request.locals]
    assert all(name.startswith("plp-mount-") for name in names)
    assert {option.key: option.value for option in request.options} == {
        "contextkey": names[0],
        "dockerfilekey": names[0],
        "filename": "Dockerfile",
        **{f"context:{name}": f"local:{name}" for name in names[1:]},
        "build-arg:BUILDKIT_CACHE_MOUNT_NS": "space",
    }
    assert request.cache_export is None
    assert not request.no_cache
