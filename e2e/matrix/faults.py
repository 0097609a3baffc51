"""Calls that fail: what the program is told is what happened, everybody sees the same, and work goes on."""

import tempfile

import apsw

from children import Failed, in_child
from database import (
    NEXT, attempt, connect, content, expect, expect_sound, expect_vfs, load_quire, run, rows, unpushed, value,
)
from faulty import FaultyVFS, Plan
from points import Points


# Each volume takes some MiB of disk.
CASES_AT_A_TIME = 40


def run_faults(extension, scenario, combination, expected, sample):
    """All faults of a scenario under one combination of settings; gives their number."""
    points = in_child(count, extension, scenario, combination, expected)
    faults = list(points.faults(sample))
    for at in range(0, len(faults), CASES_AT_A_TIME):
        with tempfile.TemporaryDirectory(prefix="quire-matrix-") as folder:
            here, there, store = f"{folder}/here", f"{folder}/there", f"{folder}/store"
            some = faults[at : at + CASES_AT_A_TIME]
            finals = in_child(inject, extension, here, store, scenario, combination, expected, points, some)
            in_child(reopen, extension, here, store, finals, True)
            in_child(reopen, extension, there, store, finals, False)
    return len(faults)


def count(extension, scenario, combination, expected):
    """The transaction without a fault."""
    with tempfile.TemporaryDirectory(prefix="quire-matrix-") as folder:
        load_quire(extension, f"{folder}/here", f"{folder}/store")
        plan = Plan()
        vfs = FaultyVFS(plan)
        calls = Case(scenario, combination, expected, plan, "counted", False).run(None, None, {})
        vfs.unregister()
        return Points(scenario, combination, calls)


def inject(extension, data_dir, store, scenario, combination, expected, points, faults):
    """Every fault on volumes of its own, one after the other in one process; gives what each volume holds at last."""
    load_quire(extension, data_dir, store)
    plan = Plan()
    vfs = FaultyVFS(plan)
    finals = {}
    for number, fault in enumerate(faults):
        try:
            # What was pushed lies otherwise in the replica than what was not.
            pushed = number % 2 == 1 and len(scenario.setup) > 0
            Case(scenario, combination, expected, plan, f"case-{number}", pushed).run(points, fault, finals)
        except Failed as failure:
            raise Failed(f"{fault}: {failure}") from None
    vfs.unregister()
    return finals


def reopen(extension, data_dir, store, finals, push):
    """In a fresh process, and perhaps on another machine, volumes hold what they held."""
    load_quire(extension, data_dir, store)
    for name, wanted in finals.items():
        db = connect([name], "quire")
        expect_vfs(db, "quire")
        expect(f"{name} after a reopen", content(db), wanted)
        expect_sound(db)
        if push:
            run(db, "SELECT quire_push()")
            expect("state", rows(db, f"SELECT state FROM quire_status WHERE name = '{name}'"), [("clean",)])
        db.close()


def open_faulty(scenario, combination, names):
    """The connection that meets the faults, with its settings."""
    db = connect(names, "faulty")
    expect_vfs(db, "quire")
    for pragma, answer in scenario.settings(combination):
        found = rows(db, pragma)
        if answer is not None:
            expect(pragma, found, [(answer,)])
    run(db, *scenario.setup)
    return db


class Case:
    """One fault on fresh volumes, with other connections beside the one that meets it."""

    def __init__(self, scenario, combination, expected, plan, name, pushed):
        self.scenario, self.expected, self.plan = scenario, expected, plan
        self.names = [f"{name}-{schema}" for schema in scenario.schemas]
        self.db = open_faulty(scenario, combination, self.names)
        if pushed:
            for volume in self.names:
                pusher = connect([volume], "quire")
                run(pusher, "SELECT quire_push()")
                pusher.close()
        # Each has filled its cache; the pinned ones are in a transaction.
        self.connect_others()
        self.unpushed = {}
        for schema, volume in self.volumes():
            run(self.pinned[schema], "BEGIN")
            for db in (self.warm[schema], self.pinned[schema]):
                expect("content before", content(db), expected.before[schema][0])
            self.unpushed[schema] = unpushed(self.warm[schema], volume)

    def volumes(self):
        return zip(self.scenario.schemas, self.names)

    def run(self, points, fault, finals):
        """Gives the calls that the transaction made. Adds what the volumes hold at last to `finals`."""
        self.plan.arm(fault)
        error = attempt(self.db, self.scenario.steps)
        self.plan.disarm()
        if fault is None and error:
            raise Failed(f"without a fault: {error}")
        if fault and not self.plan.fired:
            raise Failed("the transaction did not make the same calls again")
        if fault and points.is_told_late(self.scenario, fault):
            self.all_content()
        states = {}
        for schema, volume in self.volumes():
            wanted = points.wanted(schema, fault, error) if fault else "after"
            states[schema] = self.check(schema, volume, wanted)
        self.go_on(points is not None and points.may_stop(fault))
        for schema, volume in self.volumes():
            finals[volume] = getattr(self.expected, states[schema])[schema][1]
            self.expect_content(schema, volume, finals[volume], "after the next transaction")
        self.close()
        return self.plan.calls

    def go_on(self, may_be_stopped):
        """The next transaction commits; where volumes may have stopped, after they were closed and opened again."""
        error = attempt(self.db, self.scenario.each(NEXT))
        if error is None:
            return
        if not may_be_stopped:
            raise Failed(f"the next transaction: {error}")
        status = "SELECT count(*) FROM quire_status WHERE last_error IS NOT NULL AND remedy IS NOT NULL"
        if value(apsw.Connection(":memory:"), status) == 0:
            raise Failed(f"the next transaction: {error}; and no remedy is given")
        self.close()
        self.db = connect(self.names, "faulty")
        self.connect_others()
        run(self.db, *self.scenario.each(NEXT))

    def connect_others(self):
        self.warm = {schema: connect([name], "quire") for schema, name in self.volumes()}
        self.pinned = {schema: connect([name], "quire") for schema, name in self.volumes()}

    def close(self):
        for db in (self.db, *self.warm.values(), *self.pinned.values()):
            db.close()

    def all_content(self):
        return [content(self.db, schema) for schema in self.scenario.schemas]

    def check(self, schema, volume, wanted):
        """Every connection sees the database as it was before or after the transaction; gives which."""
        fresh = connect([volume], "quire")
        found = content(fresh)
        state = self.expected.state(schema, found)
        expect_sound(fresh)
        changes = self.expected.changes[schema]
        if changes:
            expect(f"{schema} is as it was", state, wanted)
        commits = unpushed(fresh, volume) - self.unpushed[schema]
        expect(f"commits of {schema}", commits, int(changes and state == "after"))
        expect("the pinned reader's content", content(self.pinned[schema]), self.expected.before[schema][0])
        run(self.pinned[schema], "COMMIT")
        self.expect_content(schema, volume, found, "after the transaction")
        expect_sound(self.db, schema)
        fresh.close()
        return state

    def expect_content(self, schema, volume, wanted, when):
        fresh = connect([volume], "quire")
        seers = {"warm": self.warm[schema], "formerly pinned": self.pinned[schema], "fresh": fresh}
        for name, db in seers.items():
            expect(f"{schema} {when}, through the {name} connection", content(db), wanted)
        expect(f"{schema} {when}, through the connection that failed", content(self.db, schema), wanted)
        fresh.close()
