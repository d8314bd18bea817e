"""What is known of a build, from its events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.progress.events import parse
from plp_builder.progress.model import Change, Finished, Line, Model, Said, Started, Warned
from tests.support.streams import moment, output, recorded, status, vertex, watch


def apply(model: Model, *lines: bytes) -> list[Change]:
    return [change for line in lines for event in parse(line) for change in model.apply(event)]


def texts(changes: list[Change]) -> list[str]:
    return [change.text for change in changes if isinstance(change, Line)]


@pytest.mark.parametrize(
    ("name", "cached", "total"),
    [
        ("built", 0, 3),
        ("cached", 3, 3),
        ("run-fails", 1, 2),
        ("parallel", 1, 3),
        ("copy-link-cached", 5, 5),
    ],
)
def test_steps_that_people_count(name: str, cached: int, total: int) -> None:
    _, model = watch(recorded(name))
    assert (model.steps_cached, model.steps_total) == (cached, total)


def test_whether_steps_have_printed_anything() -> None:
    model = Model()
    apply(model, vertex("v", "RUN true", started=moment(0)), b"time=x msg=y\n")
    assert not model.printed
    apply(model, output("v", b"a"))
    assert model.printed


def test_the_instructions_that_are_being_carried_out() -> None:
    model = Model()
    apply(model, vertex("a", "[1/2] RUN one", started=moment(0)))
    apply(model, vertex("b", "[2/2] RUN two", started=moment(1)))
    apply(model, vertex("c", "[internal] load build context", started=moment(1)))
    apply(model, vertex("a", "[1/2] RUN one", started=moment(0), completed=moment(2)))
    assert model.running == ("[2/2] RUN two",)


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("[2/5] RUN make", "RUN"),
        ("[build 2/5] COPY . .", "COPY"),
        ("[linux/arm64 build 12/15] ADD x y", "ADD"),
        ("[internal] load build context", ""),
        ("exporting to docker image format", ""),
        ("[auth] library/alpine:pull token", ""),
    ],
)
def test_the_instruction_of_a_step(name: str, instruction: str) -> None:
    model = Model()
    apply(model, vertex("v", name))
    assert model.steps["v"].instruction == instruction


def test_a_base_image_is_not_counted() -> None:
    model = Model()
    apply(model, vertex("v", "[1/2] FROM docker.io/library/alpine", started=moment(0)))
    assert model.steps_total == 0


def test_a_step_that_is_never_needed_is_not_counted() -> None:
    model = Model()
    apply(model, vertex("v"))
    assert model.steps_total == 0


def test_a_step_may_start_and_complete_twice() -> None:
    """Its time is that of both, and each end is told."""
    model = Model()
    first = {"started": moment(0), "completed": moment(1)}
    second = {"started": moment(10), "completed": moment(12.5)}
    changes = apply(
        model,
        vertex("v", **first),
        vertex("v", started=moment(10)),
        vertex("v", **first),
        vertex("v", **second),
        vertex("v", **second),
    )
    assert [type(change) for change in changes] == [Started, Finished, Started, Finished]
    assert model.steps["v"].duration == pytest.approx(3.5)
    assert not model.steps["v"].running


def test_overlapping_times_count_once() -> None:
    model = Model()
    apply(
        model,
        vertex("v", started=moment(0), completed=moment(10)),
        vertex("v", started=moment(2), completed=moment(4)),
        vertex("v", started=moment(8), completed=moment(11)),
    )
    assert model.steps["v"].duration == pytest.approx(11)


def test_a_step_is_cached_only_if_all_of_it_was() -> None:
    model = Model()
    apply(
        model,
        vertex("v", started=moment(0), completed=moment(1)),
        vertex("v", started=moment(2), completed=moment(3), cached=True),
    )
    assert not model.steps["v"].cached


def test_a_result_that_is_fetched_is_cached() -> None:
    """BuildKit reports the fetching as times of work within a longer one."""
    model = Model()
    apply(
        model,
        vertex("v", started=moment(0), cached=True),
        vertex("v", started=moment(1)),
        vertex("v", started=moment(1), completed=moment(2)),
    )
    assert model.steps["v"].running
    changes = apply(model, vertex("v", started=moment(0), completed=moment(3), cached=True))
    assert [type(change) for change in changes] == [Finished]
    assert model.steps["v"].cached


@pytest.mark.parametrize("what", ["sha256:00", "extracting sha256:00"])
def test_a_result_that_is_fetched_when_it_is_needed_is_cached(what: str) -> None:
    """As a cache from a registry is; the news of the transfer may come last."""
    model = Model()
    apply(
        model,
        vertex("v", started=moment(0), completed=moment(0), cached=True),
        vertex("v", started=moment(2)),
        vertex("v", started=moment(2), completed=moment(3)),
        status("v", what, 10, 10),
    )
    assert model.steps["v"].cached


def test_what_fetches_and_then_works_is_not_cached() -> None:
    model = Model()
    apply(
        model,
        vertex("v", started=moment(0), completed=moment(1)),
        status("v", "sha256:00", 10, 10),
        vertex("v", started=moment(2), completed=moment(3), cached=True),
    )
    assert not model.steps["v"].cached
    other = Model()
    apply(
        other,
        vertex("v", started=moment(0), completed=moment(1), cached=True),
        vertex("v", started=moment(2), completed=moment(3)),
    )
    assert not other.steps["v"].cached


def test_a_group_is_one_step() -> None:
    group: dict[str, Any] = {"progressGroup": {"id": "g", "name": "[2/2] COPY --link a b"}}
    model = Model()
    changes = apply(
        model,
        vertex("merge", "[2/2] LINK COPY --link a b", **group),
        vertex("copy", "[2/2] COPY --link a b", **group),
        vertex("copy", started=moment(0), completed=moment(1), **group),
        vertex("merge", started=moment(5), completed=moment(6), **group),
    )
    assert [type(change) for change in changes] == [Started, Finished]
    assert list(model.steps) == ["g"]
    assert model.steps["g"].name == "[2/2] COPY --link a b"


def test_a_group_whose_rest_was_not_needed_ends_with_the_build() -> None:
    group: dict[str, Any] = {"progressGroup": {"id": "g", "name": "[2/2] COPY --link a b"}}
    model = Model()
    apply(model, vertex("merge", **group), vertex("copy", **group))
    apply(model, vertex("copy", started=moment(0), completed=moment(1), **group))
    assert [type(change) for change in model.finish()] == [Finished]
    assert model.finish() == []


def test_output_is_cut_into_lines_with_seconds_since_the_start() -> None:
    model = Model()
    apply(model, vertex("v", started=moment(10)))
    changes = apply(model, output("v", b"one\ntw", 10.5), output("v", b"o\nrest", 12))
    assert texts(changes) == ["one", "two"]
    seconds = [change.seconds for change in changes if isinstance(change, Line)]
    assert seconds == pytest.approx([0.5, 2])
    assert texts(apply(model, vertex("v", started=moment(10), completed=moment(13)))) == ["rest"]


def test_the_two_streams_of_a_step_do_not_mix_within_a_line() -> None:
    model = Model()
    apply(model, vertex("v", started=moment(0)))
    changes = apply(model, output("v", b"out", stream=1), output("v", b"err\n", stream=2))
    changes += apply(model, output("v", b"put\n", stream=1))
    assert texts(changes) == ["err", "output"]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b" 10%\r 50%\r100%\n", ["100%"]),
        (b"windows\r\n", ["windows"]),
        (b"10%\r20%\r\r\n", ["20%"]),
        (b"\x1b[2K\x1b[1Gold\x1b[2K\x1b[1Gnew\n", ["new"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        ("grün\n".encode("latin-1"), ["gr\ufffdn"]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_only_the_last_state_of_a_progress_bar_counts(
    data: bytes, lines: list[str], size: int
) -> None:
    model = Model()
    changes = apply(model, *(output("v", data[at : at + size]) for at in range(0, len(data), size)))
    assert [text.replace("\x1b[2K", "") for text in texts(changes)] == lines


@given(st.text(st.characters(exclude_characters="\r\n\x1b", codec="utf-8")), st.integers(1, 7))
def test_however_output_is_cut_the_text_is_the_same(text: str, size: int) -> None:
    data = text.encode() + b"\n"
    model = Model()
    pieces = [output("v", data[at : at + size]) for at in range(0, len(data), size)]
    assert texts(apply(model, *pieces)) == [text]


def test_a_progress_bar_without_end_is_one_line() -> None:
    model = Model()
    changes = apply(model, *(output("v", b"%6d of many\r" % number) for number in range(5_000)))
    assert texts(changes) == []
    assert texts(model.finish()) == ["  4999 of many"]


def test_memory_is_bounded() -> None:
    """A step that prints without end, in one line or in many, is not kept."""
    model = Model()
    apply(model, vertex("v", started=moment(0)))
    apply(model, *(output("v", b"x" * 10_000) for _ in range(100)))
    step = model.steps["v"]
    assert len(step.partial[1]) <= 16384
    apply(model, output("v", b"\n" + b"y\n" * 10_000))
    assert len(step.lines) == 50
    apply(model, *(status("v", f"sha256:{number}", 1) for number in range(2_000)))
    assert len(step.transfers) == 1000
    apply(model, *(vertex(f"v{number}") for number in range(10_100)))
    assert len(model.steps) == 10_000
    apply(model, *(b"text\n" for _ in range(1000)))
    assert len(model.texts) == 200


def test_bytes_received() -> None:
    _, model = watch(recorded("built"))
    assert model.transferred == 1_982_838


def test_the_failed_step_is_not_one_that_was_cancelled_with_it() -> None:
    _, model = watch(recorded("parallel"))
    assert model.failed is not None
    assert model.failed.name.startswith("[a 1/1] RUN")
    assert [step.name for step in model.steps.values() if step.canceled] == [
        '[b 1/1] RUN for i in 1 2 3 4 5 6; do printf "b$i\\r"; busybox sleep 0.3; done'
    ]


def test_a_warning_is_told_once() -> None:
    """Every platform of a build repeats the findings of its Dockerfile."""
    model = Model()
    lines = recorded("warnings")
    told = [change for change in apply(model, *lines, *lines) if isinstance(change, Warned)]
    assert len(told) == len(model.warnings) == 5


def test_last_words_are_kept_apart_from_other_lines() -> None:
    model = Model()
    said = apply(model, b'time="x" level=warning msg="y"\n', *recorded("run-fails"))
    assert [change.text for change in said if isinstance(change, Said)] == [
        'time="x" level=warning msg="y"'
    ]
    assert "error: failed to solve" in model.texts[-1]


def test_noise_of_buildctl_is_told_as_such() -> None:
    noise = (
        b'time="x" level=error msg="(*service).Write failed" error="rpc error: code = Unavailable '
        b'desc = ref layer-sha256:00 locked for 92ms (since x): unavailable"\n'
    )
    assert apply(Model(), noise) == [Said(noise.decode().strip(), True)]


def test_a_line_like_the_head_of_an_excerpt_is_not_lost() -> None:
    model = Model()
    said = apply(model, b"panic.go:12\n", b"more\n", b"last.go:3\n") + model.finish()
    assert [change.text for change in said if isinstance(change, Said)] == [
        "panic.go:12",
        "more",
        "last.go:3",
    ]
