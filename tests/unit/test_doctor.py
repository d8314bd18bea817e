"""What the doctor shows."""

from __future__ import annotations

from plp_builder.preflight import doctor
from plp_builder.preflight.finding import Finding


def test_the_doctor_s_table() -> None:
    found = [
        Finding("one", True, "fine", "never shown"),
        Finding("second", None, "so so\x1b[31m", "do this"),
        Finding("3", False, "bad", "do that"),
    ]
    assert list(doctor.table(found)) == [
        "ok       one     fine",
        "warning  second  so so",
        "                 -> do this",
        "failed   3       bad",
        "                 -> do that",
        "",
        "1 of 3 checks failed: a build would not run here.",
    ]
    assert list(doctor.table(found[:2]))[-1].startswith("A build would run here; 1 of 2")
    assert list(doctor.table(found[:1]))[-1] == "A build would run here: all 1 checks are fine."
