"""A volume and an ordinary file in one transaction: refused where SQLite would make a promise that cannot be kept."""

import tempfile

import apsw

from children import Failed, in_child
from database import attempt, connect, expect, expect_sound, load_quire, rows, run


def run_outside(extension, combination):
    """The volume is the main database, the file is attached, and the other way round; gives the number of cases."""
    with tempfile.TemporaryDirectory(prefix="quire-matrix-") as folder:
        in_child(file_attached, extension, folder, combination)
        in_child(volumes_attached, extension, folder, combination)
    return 2


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
