from worker.watchdog import STALL_SECONDS, ProgressWatch


def test_work_that_does_not_move_for_a_minute_is_a_stall() -> None:
    watch = ProgressWatch()
    assert watch.stalled_seconds(7, 0.0, has_work=True) is None
    assert watch.stalled_seconds(7, STALL_SECONDS - 0.1, has_work=True) is None
    assert STALL_SECONDS + 5 == watch.stalled_seconds(7, STALL_SECONDS + 5, has_work=True)


def test_progress_starts_the_minute_again() -> None:
    watch = ProgressWatch()
    watch.stalled_seconds(7, 0.0, has_work=True)
    assert watch.stalled_seconds(8, STALL_SECONDS + 1, has_work=True) is None
    assert watch.stalled_seconds(8, 2 * STALL_SECONDS, has_work=True) is None


def test_a_worker_without_work_is_not_stalled_and_the_minute_starts_when_work_comes() -> None:
    watch = ProgressWatch()
    watch.stalled_seconds(7, 0.0, has_work=True)
    assert watch.stalled_seconds(7, STALL_SECONDS * 10, has_work=False) is None
    assert watch.stalled_seconds(7, STALL_SECONDS * 10 + 1, has_work=True) is None
