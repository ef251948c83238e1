"""The bar writes to standard error, says the time left, and can be silent."""

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


def test_a_hidden_bar_counts_but_draws_nothing(capsys):
    with progress_bar(show=False) as bar:
        task = bar.add_task("counting", total=2)
        bar.advance(task, 2)
        assert bar.finished
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
