"""Which processes belong to whom."""

from __future__ import annotations

from pathlib import Path

from plp_builder.buildkit.leftovers import descendants, parents


def test_descendants_of_all_generations_are_found() -> None:
    tree = {2: 1, 3: 2, 4: 3, 5: 1, 6: 5}
    assert descendants(2, tree) == {3, 4}
    assert descendants(1, tree) == {2, 3, 4, 5, 6}
    assert descendants(9, tree) == set()


def test_a_loop_of_parents_ends() -> None:
    """Pids are reused: two files of /proc read at different moments may contradict each other."""
    assert descendants(1, {2: 1, 3: 2, 2 + 2: 3}) == {2, 3, 4}
    assert descendants(2, {2: 3, 3: 2}) == {2, 3}


def process(proc: Path, pid: int, name: str, state: str, parent: int) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {state} {parent} 1 1 0 -1")


def test_parents_are_read_whatever_a_process_calls_itself(tmp_path: Path) -> None:
    process(tmp_path, 10, "sh", "S", 1)
    process(tmp_path, 11, "evil) R 99 (x", "R", 10)
    process(tmp_path, 12, "gone", "Z", 10)
    (tmp_path / "13").mkdir()
    (tmp_path / "self").mkdir()
    assert parents(tmp_path) == {10: 1, 11: 10}
    assert parents(tmp_path, ended=True) == {10: 1, 11: 10, 12: 10}
