"""A job's life: the order of its events, pause and cancel, failures in plain words, and the three runners."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from napari_kdseg.errors import DataError, explain
from napari_kdseg.jobs import (
    Cancelled,
    Control,
    Done,
    Event,
    Failed,
    JobCancelled,
    Message,
    Paused,
    Resumed,
    RunningJob,
    Started,
    Step,
    Terminal,
    run_inline,
    start_in_process,
    start_in_thread,
)

RUNNERS = [run_inline, start_in_thread, start_in_process]


def counting(total: int, emit: Any, control: Control) -> int:
    emit(Started("Counting", total))
    for number in range(total):
        control.check()
        emit(Step("count", number + 1, total, {"value": float(number)}))
    return total


def endless(config: Any, emit: Any, control: Control) -> None:
    emit(Started("Endless"))
    number = 0
    while True:
        control.check()
        number += 1
        if number <= 100:
            emit(Step("count", number, 0))
        time.sleep(0.002)


def tidy(config: list[str], emit: Any, control: Control) -> None:
    emit(Started("Tidy"))
    try:
        while True:
            control.check()
            time.sleep(0.002)
    except JobCancelled:
        emit(Message("saved"))
        raise


def failing(error: Exception, emit: Any, control: Control) -> None:
    emit(Started("Failing"))
    raise error


def dying(code: int, emit: Any, control: Control) -> None:
    emit(Started("Dying"))
    os._exit(code)


def result_that_cannot_travel(config: Any, emit: Any, control: Control) -> Any:
    return lambda: None


def wait_for(running: RunningJob, kind: type[Event], seconds: float = 60.0) -> None:
    arrived = threading.Event()
    missed = running.observe(lambda event: arrived.set() if isinstance(event, kind) else None)
    assert any(isinstance(event, kind) for event in missed) or arrived.wait(seconds), (
        f"no {kind.__name__} event"
    )


@pytest.mark.parametrize("runner", RUNNERS)
def test_events_come_in_order_and_end_once(runner):
    seen: list[Event] = []
    running = runner(counting, 3, seen.append)
    assert running.join(60)
    assert not running.running
    assert running.end == Done(3)
    steps = [Step("count", number + 1, 3, {"value": float(number)}) for number in range(3)]
    assert running.history == [Started("Counting", 3), *steps, Done(3)]
    assert seen == running.history


@pytest.mark.parametrize("start", [start_in_thread, start_in_process])
def test_pause_resume_cancel(start):
    running = start(endless, None)
    wait_for(running, Step)
    running.control.pause()
    wait_for(running, Paused)
    assert running.control.paused
    count = len(running.history)
    time.sleep(0.05)
    assert len(running.history) == count, "a paused job says nothing"
    running.control.resume()
    wait_for(running, Resumed)
    running.control.cancel()
    assert running.join(60)
    assert running.end == Cancelled()
    assert sum(isinstance(event, Terminal) for event in running.history) == 1


@pytest.mark.parametrize("start", [start_in_thread, start_in_process])
def test_a_paused_job_can_be_cancelled(start):
    running = start(endless, None)
    wait_for(running, Step)
    running.control.pause()
    wait_for(running, Paused)
    running.control.cancel()
    assert running.join(60)
    assert running.end == Cancelled()
    assert not any(isinstance(event, Resumed) for event in running.history)


def test_a_job_may_save_before_it_stops():
    running = start_in_thread(tidy, None)
    wait_for(running, Started)
    running.control.cancel()
    assert running.join(60)
    assert running.history[-2:] == [Message("saved"), Cancelled()]


def test_cancelled_before_it_began():
    control = Control()
    control.cancel()
    control.pause()
    assert not control.paused, "a job that is to stop is not made to wait"
    with pytest.raises(JobCancelled):
        control.check()


@pytest.mark.parametrize("runner", RUNNERS)
def test_an_exception_becomes_a_failure(runner):
    running = runner(failing, DataError("The folder is empty. Choose another."))
    assert running.join(60)
    assert isinstance(running.end, Failed)
    assert running.end.message == "The folder is empty. Choose another."
    assert "DataError" in running.end.details


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "smaller batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "smaller batch"),
        (OSError(28, "No space left on device", "/somewhere"), "disk is full"),
        (PermissionError(13, "Permission denied", "/somewhere"), "cannot be written"),
        (FileNotFoundError(2, "No such file", "/somewhere"), "does not exist"),
        (ValueError("odd"), "ValueError: odd"),
        (ValueError(), "ValueError"),
    ],
)
def test_failures_are_put_in_plain_words(error, words):
    running = run_inline(failing, error)
    assert isinstance(running.end, Failed)
    assert words in running.end.message
    assert running.end.message == explain(error)


def test_a_process_that_dies_is_a_failure():
    running = start_in_process(dying, 3)
    assert running.join(60)
    assert isinstance(running.end, Failed)
    assert "ended unexpectedly" in running.end.message
    assert "3" in running.end.message


def test_a_result_that_cannot_travel_is_a_failure():
    running = start_in_process(result_that_cannot_travel, None)
    assert running.join(60)
    assert isinstance(running.end, Failed)


def test_an_observer_that_raises_does_not_disturb(capsys):
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise KeyError("observer")

    running = RunningJob()
    running.observe(broken)
    running.observe(seen.append)
    running.emit(Started("x"))
    running.emit(Done())
    assert seen == [Started("x"), Done()]
    assert "KeyError" in capsys.readouterr().err


def test_an_observer_may_come_late():
    running = RunningJob()
    running.emit(Started("x"))
    seen: list[Event] = []
    assert running.observe(seen.append) == [Started("x")]
    running.emit(Message("one"))
    assert seen == [Message("one")]
    assert running.running


def test_joining_an_inline_job():
    assert run_inline(counting, 1).join()
