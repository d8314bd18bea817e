"""What people see of a build."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime

import pytest

from plp_builder import log, progress
from plp_builder.progress import Model, Progress
from tests.support.streams import moment, output, recorded, status, vertex, watch


class Console:
    """A console at which time passes as the test says."""

    def __init__(self, *, colour: bool = False, verbose: bool = False) -> None:
        self.stream = io.StringIO()
        self.progress: Progress = progress.create(
            "plain", "console", self.stream, colour, Model(), verbose=verbose
        )

    def new(self) -> list[str]:
        """What was written since the last call."""
        lines = self.stream.getvalue().splitlines()
        self.stream.seek(0)
        self.stream.truncate()
        return lines

    def feed(self, now: float, *lines: bytes) -> list[str]:
        for line in lines:
            self.progress.feed(line, now)
        return self.new()

    def tick(self, now: float) -> list[str]:
        self.progress.tick(now)
        return self.new()


def test_a_build() -> None:
    shown, _ = watch(recorded("built"))
    assert shown.splitlines() == [
        "#1 [1/3] COPY busybox /bin/busybox",
        "#1 DONE 0.0s",
        "#2 [2/3] RUN echo hello; busybox sleep 1; echo world >&2",
        "#2 0.068 hello",
        "#2 1.069 world",
        "#2 DONE 1.1s",
        "#3 [3/3] RUN echo second",
        "#3 0.067 second",
        "#3 DONE 0.1s",
    ]


def test_an_unchanged_build() -> None:
    shown, _ = watch(recorded("cached"))
    assert shown.splitlines() == [
        "#1 [1/3] COPY busybox /bin/busybox",
        "#1 CACHED",
        "#2 [2/3] RUN echo hello; busybox sleep 1; echo world >&2",
        "#2 CACHED",
        "#3 [3/3] RUN echo second",
        "#3 CACHED",
    ]


def test_steps_side_by_side_of_which_one_fails() -> None:
    """The last words of buildctl are left to the block at the end of the run."""
    shown, _ = watch(recorded("parallel"))
    lines = shown.splitlines()
    assert [line for line in lines if line.startswith("#3")] == [
        '#3 [b 1/1] RUN for i in 1 2 3 4 5 6; do printf "b$i\\r"; busybox sleep 0.3; done',
        "#3 0.993 b4",
        "#3 CANCELED",
    ]
    assert [line for line in lines if line.startswith("#2")] == [
        "#2 [a 1/1] RUN for i in 1 2 3; do echo a$i; busybox sleep 0.3; done; exit 3",
        "#2 0.057 a1",
        "#2 0.358 a2",
        "#2 0.659 a3",
        (
            '#2 ERROR: process "/bin/busybox sh -c for i in 1 2 3; do echo a$i; busybox sleep 0.3; '
            'done; exit 3" did not complete successfully: exit code: 3'
        ),
    ]
    assert all(line.startswith("#") for line in lines)


def test_warnings_of_the_dockerfile_checks() -> None:
    shown, _ = watch(recorded("warnings"))
    assert (
        'WARNING Dockerfile:4 LegacyKeyValueFormat: "ENV key=value" should be used instead of '
        'legacy "ENV key value" format '
        "(https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/)"
    ) in shown.splitlines()


def test_lines_of_other_libraries() -> None:
    shown, _ = watch([b"http2: server closed\x1b]0;title\x07\n"])
    assert shown == "buildctl: http2: server closed\n"


def test_noise_of_buildctl_is_for_the_curious() -> None:
    noise = b'time="x" level=warning msg="failed check for fsverity support" error="y"\n'
    assert Console().feed(0, noise) == []
    assert Console(verbose=True).feed(0, noise) == [f"buildctl: {noise.decode().strip()}"]


def test_a_cached_step_that_is_fetched() -> None:
    shown, _ = watch(recorded("copy-link-cached"))
    assert [line for line in shown.splitlines() if "CACHED" in line or "DONE" in line] == [
        f"#{number} CACHED" for number in (1, 2, 3, 4, 5)
    ]


def test_a_cached_step_is_told_once_though_it_is_fetched_later() -> None:
    console = Console()
    again = {"started": moment(0), "completed": moment(0), "cached": True}
    console.feed(0, vertex("v", "[1/1] RUN a", **again))
    assert console.tick(1) == ["#1 CACHED"]
    fetched = vertex("v", "[1/1] RUN a", started=moment(1), completed=moment(2), cached=True)
    console.feed(2, fetched)
    assert console.tick(3) == []


def test_an_end_that_is_taken_back_is_not_told() -> None:
    """BuildKit completes a step for an instant and begins it again."""
    console = Console()
    console.feed(0, vertex("v", "[1/2] FROM alpine", started=moment(0), completed=moment(0.001)))
    assert console.feed(0.01, vertex("v", "[1/2] FROM alpine", started=moment(0.01))) == []
    assert console.tick(1) == []
    done = vertex("v", "[1/2] FROM alpine", started=moment(0.01), completed=moment(4.01))
    assert console.feed(4, done) == []
    assert console.tick(4.1) == []
    assert console.tick(4.3) == ["#1 DONE 4.0s"]


def test_an_end_is_told_before_another_step_begins() -> None:
    console = Console()
    console.feed(0, vertex("a", "[1/2] RUN a", started=moment(0), completed=moment(1)))
    assert console.feed(1, vertex("b", "[2/2] RUN b", started=moment(1))) == [
        "#1 DONE 1.0s",
        "#2 [2/2] RUN b",
    ]


def test_short_tasks_of_buildkit_stay_hidden() -> None:
    console = Console()
    name = "[internal] load build context"
    assert console.feed(0, vertex("v", name, started=moment(0))) == []
    assert console.tick(0.5) == []
    assert console.feed(0.6, vertex("v", name, started=moment(0), completed=moment(0.6))) == []
    console.progress.finish(1)
    assert console.new() == []


def test_long_tasks_of_buildkit_are_shown() -> None:
    console = Console()
    name = "[internal] load build context"
    console.feed(0, vertex("v", name, started=moment(0)))
    assert console.tick(1) == ["#1 [internal] load build context"]
    console.feed(2, status("v", "transferring context:", 345_600_000))
    console.feed(2, vertex("v", name, started=moment(0), completed=moment(2.5)))
    console.progress.finish(3)
    assert console.new() == ["#1 DONE 2.5s, 345.6 MB"]


def test_a_long_task_is_shown_at_its_end_if_nobody_looked_before() -> None:
    console = Console()
    name = "[internal] load build context"
    console.feed(0, vertex("v", name, started=moment(0), completed=moment(1.5)))
    assert console.tick(1) == ["#1 [internal] load build context", "#1 DONE 1.5s"]


def test_failed_tasks_of_buildkit_are_shown() -> None:
    shown, _ = watch(recorded("image-404"))
    assert shown.splitlines() == [
        "#1 [internal] load metadata for 127.0.0.1:5077/404/image:1",
        "#1 ERROR: 127.0.0.1:5077/404/image:1: not found",
    ]


def test_verbose_shows_every_task() -> None:
    console = Console(verbose=True)
    started = vertex("v", "[internal] load build context", started=moment(0))
    assert console.feed(0, started) == ["#1 [internal] load build context"]


def test_parts_of_a_task_that_take_time_are_told() -> None:
    part = {"id": "exporting layers", "vertex": "v", "started": moment(0), "completed": moment(12)}
    console = Console()
    console.feed(0, vertex("v", "exporting to oci image format", started=moment(0)))
    assert console.feed(12, json.dumps({"statuses": [part]}).encode()) == [
        "#1 exporting to oci image format",
        "#1 12.000 exporting layers 12.0s",
    ]


def test_a_silent_step_shows_that_it_lives() -> None:
    """Every 30 seconds, after five minutes every minute."""
    console = Console()
    console.feed(100, vertex("v", "[1/1] RUN make", started=moment(0)))
    assert console.tick(129) == []
    assert console.tick(130) == ["#1 still running, 30.0s"]
    assert console.tick(131) == []
    console.feed(140, output("v", b"text\n", 40))
    assert console.tick(169) == []
    assert console.tick(190) == ["#1 still running, 1m30s"]
    told = [now for now in range(191, 1000) if console.tick(now)]
    assert told == [220, 250, 280, 310, 340, 370, *range(430, 1000, 60)]


def test_a_finished_step_is_silent() -> None:
    console = Console()
    console.feed(0, vertex("v", "[1/1] RUN make", started=moment(0), completed=moment(1)))
    console.tick(1)
    assert console.tick(1000) == []


def test_a_sign_of_life_tells_what_the_step_is_at() -> None:
    console = Console()
    console.feed(0, vertex("v", "[1/2] FROM alpine", started=moment(0)))
    console.feed(1, status("v", "sha256:a", 5_000_000, 20_000_000))
    console.feed(1, status("v", "sha256:b", 1_000_000, 1_000_000))
    console.feed(1, output("v", b" 10%\r\x1b[32m 45%\r"))
    assert console.tick(31) == ["#1 still running, 31.0s, 6.0 MB of 21.0 MB, 45%"]


HOSTILE = "a\x1b[2J\x1b]0;title\x07\x1bP+q\x1b\\b\x07\b\x9b31m\u202ec\u2028d\te\x1b[31mred\x1b[0m"


def test_a_step_cannot_command_the_terminal() -> None:
    console = Console()
    console.feed(0, vertex("v", f"[1/1] RUN {HOSTILE}\nx", started=moment(0)))
    shown = console.feed(0, output("v", HOSTILE.encode() + b"\n\xff\xfe\x00\n"))
    done = vertex(
        "v", f"[1/1] RUN {HOSTILE}\nx", started=moment(0), completed=moment(1), error=HOSTILE
    )
    shown += console.feed(1, done)
    console.progress.finish(1)
    assert shown + console.new() == [
        "#1 0.000 abcd\tered",
        "#1 0.000 \ufffd\ufffd",
        "#1 ERROR: abcd\tered",
    ]


def test_colours_of_a_step_reach_a_terminal_and_end_with_the_line() -> None:
    console = Console(colour=True)
    console.feed(0, vertex("v", started=moment(0)))
    assert console.feed(0, output("v", b"\x1b[31mred\x1b[2J\n")) == [
        "\x1b[90m#1 0.000\x1b[0m \x1b[31mred\x1b[0m"
    ]


def test_a_step_cannot_give_its_line_to_another() -> None:
    """A carriage return or a line separator would let a step write in another's name."""
    console = Console()
    console.feed(0, vertex("v", started=moment(0)))
    shown = console.feed(0, output("v", "x\u2028#9 DONE\x0b#9 DONE\x85#9\n".encode()))
    assert shown == ["#1 0.000 x#9 DONE#9 DONE#9"]


def test_quiet_shows_nothing_and_knows_everything() -> None:
    shown, model = watch(recorded("run-fails"), "quiet")
    assert shown == ""
    assert model.failed is not None


def test_quiet_shows_the_warnings_that_the_summary_counts() -> None:
    shown, model = watch(recorded("warnings"), "quiet")
    lines = shown.splitlines()
    assert len(lines) == len(model.warnings) == 5
    assert lines[0] == (
        "WARNING Dockerfile:1 StageNameCasing: Stage name 'Base' should be lowercase "
        "(https://docs.docker.com/go/dockerfile/rule/stage-name-casing/)"
    )
    assert all(line.startswith("WARNING ") for line in lines)


def test_quiet_logs_the_warnings_as_events() -> None:
    stream, model = io.StringIO(), Model()
    log.configure("json", "info", stream)
    shown = progress.create("quiet", "json", stream, False, model)
    for line in recorded("warnings"):
        shown.feed(line, 0)
    shown.tick(60)
    shown.finish(60)
    log.configure()
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["dockerfile check"] * 5


def test_rawjson_passes_lines_through() -> None:
    lines = recorded("run-fails")
    shown, model = watch(lines, "rawjson")
    assert shown.encode() == b"".join(lines)
    assert model.failed is not None


def test_rawjson_leaves_the_remarks_of_buildctl_to_the_log() -> None:
    """Any other line that is no JSON is passed on: it may be why a build fails."""
    noise = b'time="x" level=warning msg="failed check for fsverity support" error="y"\n'
    written = io.StringIO()
    log.configure(level="debug", stream=written)
    shown, model = watch([noise, b"error: something\n", vertex("v")], "rawjson")
    log.configure()
    assert shown.encode() == b"error: something\n" + vertex("v")
    assert "fsverity" in written.getvalue()
    assert "v" in model.steps


def test_rawjson_hides_secrets_in_the_output_of_steps() -> None:
    """It is base64 there, where the redaction of the stream does not find it."""
    log.configure(redact=("hunter2",))
    secret, other = (base64.b64encode(text).decode() for text in (b"\xffis hunter2", b"\xffother"))
    line = f'{{"logs":[{{"data":"{secret}"}},{{"data":"{other}"}}],"name":"\\"data\\":\\"aGk=\\""}}'
    shown, _ = watch([line.encode()], "rawjson")
    log.configure()
    hidden = base64.b64encode(b"\xffis <hidden>").decode()
    assert shown == line.replace(secret, hidden) + "\n"


def test_json_log_events() -> None:
    stream, model = io.StringIO(), Model()
    log.configure("json", "info", stream, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    shown = progress.create("auto", "json", stream, False, model)
    for line in [*recorded("warnings"), *recorded("run-fails")]:
        shown.feed(line, 0)
    shown.feed(vertex("long", "[3/3] RUN long", started=moment(0)), 0)
    shown.tick(30)
    shown.tick(31)
    shown.finish(31)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {event.pop("timestamp") for event in events} == {"2026-01-01T00:00:00.000Z"}
    assert events[0] == {
        "level": "warning",
        "event": "dockerfile check",
        "message": "StageNameCasing: Stage name 'Base' should be lowercase (line 1)",
        "file": "Dockerfile",
        "line": 1,
        "url": "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
    }
    steps = [
        (event["event"], event["step"], event.get("name", event.get("line", event.get("result"))))
        for event in events
        if "step" in event
    ]
    assert steps == [
        ("step started", 1, "[1/1] COPY busybox /bin/busybox"),
        ("step finished", 1, "cached"),
        ("step started", 2, "[1/2] COPY busybox /bin/busybox"),
        ("step finished", 2, "cached"),
        ("step started", 3, "[2/2] RUN echo before; echo oops >&2; exit 7"),
        ("step output", 3, "before"),
        ("step output", 3, "oops"),
        ("step finished", 3, "error"),
        ("step started", 4, "[3/3] RUN long"),
        ("step running", 4, None),
    ]


def test_json_log_events_of_buildctl_and_of_long_tasks() -> None:
    stream, model = io.StringIO(), Model()
    log.configure("json", "info", stream)
    shown = progress.create("auto", "json", stream, False, model)
    shown.feed(b"http2: server closed\n", 0)
    shown.feed(b'time="x" level=warning msg="failed check for fsverity support"\n', 0)
    shown.feed(vertex("v", "exporting to oci image format", started=moment(0)), 0)
    shown.tick(0.5)
    shown.tick(1)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(event["event"], event.get("line", event.get("name"))) for event in events] == [
        ("buildctl output", "http2: server closed"),
        ("step started", "exporting to oci image format"),
    ]


def test_a_sign_of_life_of_a_context_whose_size_is_unknown() -> None:
    console = Console()
    console.feed(0, vertex("v", "[internal] load build context", started=moment(0)))
    console.tick(1)
    console.feed(2, status("v", "transferring context:", 2_000_000))
    assert console.tick(31) == ["#1 still running, 31.0s, 2.0 MB"]


@pytest.mark.parametrize("mode", ["plain", "quiet", "rawjson"])
def test_a_closed_stream_does_no_harm(mode: str) -> None:
    stream = io.StringIO()
    stream.close()
    shown = progress.create(mode, "console", stream, False, Model())
    for line in recorded("built"):
        shown.feed(line, 0)
    shown.tick(1)
    shown.finish(1)
