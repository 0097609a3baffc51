"""Processes. Quire refuses to be used across fork(2), so only children that fork no more load it."""

import ctypes
import faulthandler
import os
import pickle
import select
import signal
import sys
import traceback

# Far above what a child takes, so that only a hang reaches it.
CHILD_LIMIT_SECONDS = 600

PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """Something did not hold."""


def start(work, *arguments):
    """Runs `work` in a child; gives its pid and the pipe that its answer comes through."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        os.close(reading)
        end_with(parent)
        faulthandler.enable()
        signal.alarm(CHILD_LIMIT_SECONDS)
        try:
            answer = (True, work(*arguments))
        except Failed as failure:
            answer = (False, str(failure))
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
    finally:
        os._exit(0)


def tidy_up_when_told_to_end():
    """Folders are removed, and children end, as after any other failure."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))


def end_with(parent):
    """This process is told to end when its parent has."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("its parent has ended")


def finish(pid, reading):
    """Waits for a child: its value, or the signal that ended it."""
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    good, value = pickle.loads(answer)
    if not good:
        raise Failed(value)
    return value, None


def in_child(work, *arguments):
    """What `work` returns in a child of its own."""
    value, died = finish(*start(work, *arguments))
    if died is not None:
        raise Failed(f"the process of {work.__name__} died of signal {died}")
    return value


def run_all(jobs, width, report):
    """Runs named jobs, `width` at a time, each in a child; `report` gets each name with its value or its failure."""
    waiting, running = list(reversed(jobs.items())), {}
    while waiting or running:
        while waiting and len(running) < width:
            name, job = waiting.pop()
            pid, reading = start(job)
            running[reading] = (pid, name)
        for reading in select.select(list(running), [], [])[0]:
            pid, name = running.pop(reading)
            try:
                value, died = finish(pid, reading)
                report(name, value, None if died is None else f"its process died of signal {died}")
            except Failed as failure:
                report(name, None, str(failure))
