"""The bar writes to standard error, says the time left, and can be silent."""

import pytest

from fewseg.ops.progress import progress_bar


def test_the_bar_draws_on_standard_error_with_the_time_left(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar() as bar:
        task = bar.add_task("counting", total=2)
        bar.advance(task)
        bar.refresh()
        assert bar.tasks[0].completed == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "counting" in captured.err
    assert "left" in captured.err


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands, until a test sets it."""
    time = [0.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: time[0])
    return time


def counted(total, capsys, clock, seconds=0.0, **options):
    """The lines of a bar that counts to a total, and takes so many seconds for each."""
    with progress_bar(**options) as bar:
        task = bar.add_task("label", total=total)
        for _ in range(total):
            clock[0] += seconds
            bar.advance(task)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_without_a_terminal_a_line_tells_each_tenth(capsys, clock):
    lines = counted(1000, capsys, clock, seconds=0.02)
    assert len(lines) == 10
    assert lines[0] == "label: 100 of 1000, 0:00:02, 0:00:18 left"
    assert lines[-1].startswith("label: 1000 of 1000, 0:00:20")


def test_without_a_terminal_a_line_tells_each_half_minute_of_slow_work(capsys, clock):
    lines = counted(20, capsys, clock, seconds=40)
    assert len(lines) == 20


def test_work_of_hours_is_told_of_less_and_less_often(capsys, clock):
    lines = counted(36_000, capsys, clock, seconds=1)
    assert len(lines) < 130


def test_counts_that_are_set_are_told_of_too(capsys):
    with progress_bar() as bar:
        task = bar.add_task("training", total=20)
        for step in range(1, 21):
            bar.update(task, completed=step, description=f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("loss 2: 2 of 20, 0:00:0")


def test_without_progress_nothing_is_printed(capsys, clock):
    assert not counted(100, capsys, clock, seconds=40, show=False)
    with progress_bar(show=False) as bar:
        task = bar.add_task("counting", total=2)
        bar.advance(task, 2)
        assert bar.finished
    assert capsys.readouterr() == ("", "")
