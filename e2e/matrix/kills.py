"""The process is killed at a call: whoever opens the volume then finds the transaction exactly done or exactly not
begun, by which side of the decision the call lies on."""

import os
import shutil
import signal
import tempfile

import children
from children import Failed, in_child
from database import NEXT, attempt, connect, content, expect, expect_sound, expect_vfs, load_quire, run
from faults import open_faulty, reopen
from faulty import FaultyVFS, Plan
from points import Points


def run_kills(extension, scenario, combination, expected, sample):
    """All kills of a scenario under one combination of settings; gives their number."""
    with tempfile.TemporaryDirectory(prefix="quire-matrix-") as folder:
        store = f"{folder}/store"
        calls = in_child(transact, extension, f"{folder}/counted", store, scenario, combination, "counted", None, None)
        points = Points(scenario, combination, calls)
        finals = {}
        for number, fault in enumerate(points.kills(sample)):
            data_dir = f"{folder}/{number}"
            try:
                name = f"kill-{number}"
                acknowledged = die(extension, data_dir, store, scenario, combination, name, fault)
                arguments = (extension, data_dir, store, scenario, expected, points, name, fault, acknowledged)
                finals |= in_child(survive, *arguments)
            except Failed as failure:
                raise Failed(f"{fault}: {failure}") from None
            shutil.rmtree(data_dir)
        in_child(reopen, extension, f"{folder}/there", store, finals, False)
        return len(finals) // len(scenario.schemas)


def transact(extension, data_dir, store, scenario, combination, name, fault, told):
    """The transaction; that it returned is told through a pipe. Gives its calls, if it lives."""
    load_quire(extension, data_dir, store)
    plan = Plan()
    vfs = FaultyVFS(plan)
    db = open_faulty(scenario, combination, [f"{name}-{schema}" for schema in scenario.schemas])
    plan.arm(fault)
    error = attempt(db, scenario.steps)
    if error:
        raise Failed(f"without a failing call: {error}")
    if fault:
        os.write(told, b"done")
        os.kill(os.getpid(), signal.SIGKILL)
    plan.disarm()
    db.close()
    vfs.unregister()
    return plan.calls


def die(extension, data_dir, store, scenario, combination, name, fault):
    """Runs the transaction in a process that is killed; says whether its COMMIT had returned."""
    listening, told = os.pipe()
    arguments = (extension, data_dir, store, scenario, combination, name, fault, told)
    process = children.start(transact, *arguments)
    os.close(told)
    _, died = children.finish(*process)
    with os.fdopen(listening, "rb") as pipe:
        acknowledged = pipe.read() == b"done"
    expect("the signal that ended the process", died, signal.SIGKILL)
    expect("acknowledged", acknowledged, fault.kind == "end")
    return acknowledged


def survive(extension, data_dir, store, scenario, expected, points, name, fault, acknowledged):
    """The next process on the data directory. Gives what its volumes hold at last."""
    load_quire(extension, data_dir, store)
    names = [f"{name}-{schema}" for schema in scenario.schemas]
    db = connect(names, "quire")
    expect_vfs(db, "quire")
    finals = {}
    for schema, volume in zip(scenario.schemas, names):
        state = expected.state(schema, content(db, schema))
        if expected.changes[schema]:
            wanted = points.wanted(schema, fault, None if acknowledged else "killed")
            expect(f"{schema} is as it was", state, wanted)
        expect_sound(db, schema)
        finals[volume] = getattr(expected, state)[schema][1]
    run(db, *scenario.each(NEXT))
    for schema, volume in zip(scenario.schemas, names):
        expect(f"{schema} after the next transaction", content(db, schema), finals[volume])
        run(db, f"SELECT quire_push('{schema}')")
    db.close()
    return finals
