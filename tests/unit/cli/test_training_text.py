"""A run without a terminal says now and then how far it is."""

import io

from worker.cli.training_text import Bar
from worker.clock import ManualClock


def test_in_a_pipe_a_line_comes_every_so_often_with_what_is_left() -> None:
    clock, stream = ManualClock(), io.StringIO()

    with Bar(clock, stream) as bar:
        told = bar.stage("mix")
        for step in range(1, 101):
            clock.advance(4.0)
            told(step, 100, 0.5)

    lines = stream.getvalue().splitlines()
    assert "mix: 8 of 100, loss 0.500, 32 s so far, about 6 min left" == lines[0]
    assert "mix: 100 of 100, loss 0.500, 6 min so far" == lines[-1]
    assert 13 == len(lines)


def test_a_run_that_goes_on_does_not_count_what_was_done_before() -> None:
    clock, stream = ManualClock(), io.StringIO()
    told = Bar(clock, stream).stage("mix")

    for step in range(9_001, 9_021):
        clock.advance(2.0)
        told(step, 10_000, 0.5)

    assert ["mix: 9015 of 10000, loss 0.500, 30 s so far, about 32 min left"] == stream.getvalue().splitlines()


def test_what_is_over_at_once_says_nothing() -> None:
    stream = io.StringIO()
    told = Bar(ManualClock(), stream).reading("mix: files read")

    for number in range(1, 61):
        told(number, 60)

    assert "" == stream.getvalue()


def test_a_counter_says_what_it_counts_and_hours_are_hours() -> None:
    clock, stream = ManualClock(), io.StringIO()
    counter = Bar(clock, stream).count("a model", 400)

    clock.advance(3_600.0)
    counter.add(200, "bbc_news")

    assert "a model: 200 of 400, bbc_news, 1 h 0 min so far, about 1 h 0 min left\n" == stream.getvalue()
