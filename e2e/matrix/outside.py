"""A volume and an ordinary file in one transaction: refused where SQLite would make a promise that cannot be kept."""

import os
import signal
import tempfile

import apsw

import children
from children import Failed, in_child
from database import attempt, connect, expect, expect_sound, load_quire, rows, run
from faulty import FaultyVFS, Fault, Plan
from points import FAILS_AFTER, OF_A_COMMIT

# The file is the main database.
SCHEMAS = ("main", "b", "c")


def run_outside(extension, combination):
    """The volume is the main database, the file is attached, and the other way round; then with every fault and every
    kill. Gives the number of cases."""
    with tempfile.TemporaryDirectory(prefix="quire-matrix-") as folder:
        in_child(file_attached, extension, folder, combination)
        in_child(volumes_attached, extension, folder, combination)
        calls = in_child(count, extension, f"{folder}/counted", combination)
        faults = list(faults_at(calls))
        in_child(inject, extension, f"{folder}/faults", combination, faults)
        in_child(reopen, extension, f"{folder}/faults", len(faults))
        kills = list(kills_at(calls))
        for number, fault in enumerate(kills):
            died = children.finish(*children.start(die, extension, f"{folder}/kills", combination, number, fault))[1]
            expect("the signal that ended the process", died, signal.SIGKILL)
            may_split = has_super_journal(combination) and is_between(calls, fault)
            try:
                in_child(survive, extension, f"{folder}/kills", combination, number, may_split)
            except Failed as failure:
                raise Failed(f"{fault}: {failure}") from None
    return 2 + len(faults) + len(kills)


def has_super_journal(combination):
    return combination.in_force != "memory" and combination.synchronous != "OFF"


def faults_at(calls):
    """The volumes' calls fail, until the file decides. Then a journal ends, in memory, which cannot fail;
    and the volumes' decision may be reported as failed."""
    announced = last_announcement(calls)
    for at, (kind, _) in enumerate(calls):
        if at <= announced and kind != "unlock":
            yield Fault(at, kind, "before")
        if kind in FAILS_AFTER and (at <= announced or kind == "PHASETWO"):
            yield Fault(at, kind, "after")


def kills_at(calls):
    for at, (kind, _) in enumerate(calls):
        yield Fault(at, kind, "kill")
        if kind in OF_A_COMMIT:
            yield Fault(at, kind, "died")


def is_between(calls, fault):
    """Whether SQLite may have decided by deleting its super-journal, which is a file, and Quire has not been told."""
    decided = [kind for kind, _ in calls].index("PHASETWO")
    return last_announcement(calls) < fault.at <= decided and fault.how == "kill"


def last_announcement(calls):
    return max(at for at, (kind, _) in enumerate(calls) if kind == "FCNTL_SYNC")


def opened(folder, number, vfs):
    """A file, with two volumes attached."""
    os.makedirs(folder, exist_ok=True)
    db = connect([f"{folder}/main-{number}.db"], "unix")
    for schema in SCHEMAS[1:]:
        run(db, f"ATTACH 'file:{schema}-{number}?vfs={vfs}' AS {schema}")
    return db


def begin(folder, combination, number):
    db = opened(folder, number, "faulty")
    prepare(db, combination, SCHEMAS)
    run(db, *both(0, SCHEMAS))
    return db


def load(extension, folder):
    load_quire(extension, f"{folder}/here", f"{folder}/store")
    plan = Plan()
    return plan, FaultyVFS(plan)


def count(extension, folder, combination):
    plan, vfs = load(extension, folder)
    db = begin(folder, combination, 0)
    plan.arm()
    run(db, *both(1, SCHEMAS))
    plan.disarm()
    db.close()
    vfs.unregister()
    return plan.calls


def inject(extension, folder, combination, faults):
    plan, vfs = load(extension, folder)
    for number, fault in enumerate(faults):
        db = begin(folder, combination, number)
        plan.arm(fault)
        error = attempt(db, both(1, SCHEMAS))
        plan.disarm()
        try:
            if not plan.fired:
                raise Failed("the transaction did not make the same calls again")
            # The file has decided when PHASETWO comes; some releases of SQLite tell the program that it failed.
            check(db, combination, error, False, may_count=fault.kind == "PHASETWO")
            run(db, *both(2, SCHEMAS))
            fresh = opened(folder, number, "quire")
            for schema in SCHEMAS:
                expect(f"{schema} through another connection", content(fresh, schema), content(db, schema))
            fresh.close()
        except (Failed, apsw.Error) as failure:
            raise Failed(f"{fault}: {failure}") from None
        db.close()
    vfs.unregister()


def die(extension, folder, combination, number, fault):
    plan, _ = load(extension, folder)
    db = begin(folder, combination, number)
    plan.arm(fault)
    run(db, *both(1, SCHEMAS))


def survive(extension, folder, combination, number, may_split):
    load_quire(extension, f"{folder}/here", f"{folder}/store")
    db = opened(folder, number, "quire")
    check(db, combination, "killed", may_split)
    run(db, *both(2, SCHEMAS))
    expect("the last row", [content(db, schema)[-1] for schema in SCHEMAS], [2, 2, 2])
    db.close()


def reopen(extension, folder, count):
    load_quire(extension, f"{folder}/here", f"{folder}/store")
    for number in range(count):
        db = opened(folder, number, "quire")
        expect("the last row", [content(db, schema)[-1] for schema in SCHEMAS], [2, 2, 2])
        db.close()


def content(db, schema):
    expect_sound(db, schema)
    return [x for (x,) in rows(db, f"SELECT x FROM {schema}.t ORDER BY x")]


def check(db, combination, error, may_split, may_count=True):
    """The transaction is in all three, or in none, unless it may count though it was said to have failed. Without a
    super-journal each of them is decided by itself."""
    found = [content(db, schema) for schema in SCHEMAS]
    for rows_of_one in found:
        if rows_of_one not in ([0], [0, 1]):
            raise Failed(f"half a transaction: {found}")
    if error is None:
        expect("rows after a commit", found, [[0, 1]] * 3)
    elif has_super_journal(combination) and not (may_split and found == [[0, 1], [0], [0]]):
        if found[1:] != found[:2]:
            raise Failed(f"after '{error}' the databases hold {found}")
        if not may_count:
            expect("rows after a failed commit", found, [[0]] * 3)


def prepare(db, combination, schemas):
    for schema in schemas:
        run(db, f"CREATE TABLE {schema}.t(x)", f"PRAGMA {schema}.synchronous = {combination.synchronous}")
        wanted = [(combination.in_force,)]
        expect("journal mode", rows(db, f"PRAGMA {schema}.journal_mode = {combination.journal}"), wanted)


def both(value, schemas):
    return ["BEGIN", *(f"INSERT INTO {schema}.t VALUES({value})" for schema in schemas), "COMMIT"]


def expect_all(db, schemas, wanted):
    for schema in schemas:
        expect(f"rows of {schema}", rows(db, f"SELECT x FROM {schema}.t"), [(x,) for x in wanted])
        expect_sound(db, schema)


def file_attached(extension, folder, combination):
    """With a super-journal such a transaction is refused before anything happens: after a crash between its two halves
    the file would look for the super-journal as a file, find none, and count its half. Without one SQLite promises
    nothing for the two together, and each commits."""
    load_quire(extension, f"{folder}/here", f"{folder}/store")
    schemas = ("main", "file")
    db = connect(["attached-file"], "quire")
    run(db, f"ATTACH 'file:{folder}/attached.db?vfs=unix' AS file")
    prepare(db, combination, schemas)
    done = []
    error = attempt(db, both(1, schemas))
    if combination.in_force == "memory" or combination.synchronous == "OFF":
        expect("error", error, None)
        done.append(1)
    elif not isinstance(error, apsw.IOError):
        raise Failed(f"a transaction over a volume and a file was not refused, but: {error}")
    expect_all(db, schemas, done)
    for schema in schemas:
        run(db, f"INSERT INTO {schema}.t VALUES(2)")
    expect_all(db, schemas, [*done, 2])
    db.close()


def volumes_attached(extension, folder, combination):
    """SQLite keeps the super-journal beside its main database, here a file, and the volumes commit with it."""
    load_quire(extension, f"{folder}/there", f"{folder}/store")
    schemas = ("main", "b", "c")
    db = connect([f"{folder}/main.db"], "unix")
    for schema in schemas[1:]:
        run(db, f"ATTACH 'file:volume-{schema}?vfs=quire' AS {schema}")
    prepare(db, combination, schemas)
    run(db, *both(1, schemas), *both(2, schemas))
    run(db, "BEGIN", *(f"DELETE FROM {schema}.t" for schema in schemas), "ROLLBACK")
    expect_all(db, schemas, [1, 2])
    db.close()
    for schema in schemas[1:]:
        db = connect([f"volume-{schema}"], "quire")
        expect_all(db, ["main"], [1, 2])
        db.close()
