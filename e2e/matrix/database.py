"""Connections, and what databases hold."""

import ctypes
import hashlib
import os

import apsw

from children import Failed

OPENING = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
FCNTL_VFSNAME = 12

# What a program does next, whatever became of the last transaction.
NEXT = ["BEGIN", "CREATE TABLE {schema}.next(x)", "INSERT INTO {schema}.next VALUES('goes on')", "COMMIT"]


def load_quire(extension, data_dir, store):
    """Makes the VFS `quire` in this process."""
    for name in [name for name in os.environ if name.startswith("QUIRE_")]:
        del os.environ[name]
    os.environ.update(QUIRE_DATA_DIR=data_dir, QUIRE_STORE=f"file://{store}", XDG_CONFIG_HOME=data_dir, QUIRE_LOG="off")
    loader = apsw.Connection(":memory:")
    loader.enableloadextension(True)
    loader.loadextension(extension)
    loader.close()


def connect(names, vfs):
    """A connection to the first database, with the others attached as b and c."""
    db = apsw.Connection(f"file:{names[0]}?vfs={vfs}", flags=OPENING)
    for schema, name in zip("bc", names[1:]):
        run(db, f"ATTACH 'file:{name}?vfs={vfs}' AS {schema}")
    return db


def rows(db, sql):
    return [tuple(row) for row in db.cursor().execute(sql)]


def value(db, sql):
    return rows(db, sql)[0][0]


FAILS = "FAILS: "


def run(db, *statements):
    """Runs statements; one that begins with `FAILS: ` must break a constraint, and no more than that."""
    for statement in statements:
        try:
            for _ in db.cursor().execute(statement.removeprefix(FAILS)):
                pass
        except apsw.ConstraintError:
            if not statement.startswith(FAILS):
                raise
        else:
            if statement.startswith(FAILS):
                raise Failed(f"it did not fail: {statement}")


def attempt(db, statements):
    """Runs statements as a program does: at the first error it rolls back. Gives the error."""
    try:
        run(db, *statements)
    except apsw.Error as error:
        if not db.getautocommit():
            try:
                run(db, "ROLLBACK")
            except apsw.Error:
                expect("out of the transaction after a failed ROLLBACK", db.getautocommit(), True)
        return error
    return None


def expect(what, got, wanted):
    if got != wanted:
        raise Failed(f"{what}: got {got!r}, wanted {wanted!r}")


def content(db, schema="main"):
    """Everything that a database holds, in short: equal digests are equal databases, down to the root pages."""
    if value(db, f"PRAGMA {schema}.page_count") == 0:
        return "nothing"
    facts = ["page_size", "page_count", "freelist_count", "auto_vacuum", "user_version"]
    digest = hashlib.sha256(repr([value(db, f"PRAGMA {schema}.{fact}") for fact in facts]).encode())
    tables = rows(db, f"SELECT type, name, tbl_name, rootpage, sql FROM {schema}.sqlite_master ORDER BY 1, 2")
    digest.update(repr(tables).encode())
    for kind, name, *_ in tables:
        if kind == "table":
            digest.update(repr(rows(db, f'SELECT rowid, * FROM {schema}."{name}" ORDER BY rowid')).encode())
    return digest.hexdigest()[:16]


def expect_sound(db, schema="main"):
    expect("integrity", rows(db, f"PRAGMA {schema}.integrity_check"), [("ok",)])


def expect_vfs(db, wanted):
    """A connection that fell back to ordinary files would pass every other check."""
    name = ctypes.c_char_p()
    db.filecontrol("main", FCNTL_VFSNAME, ctypes.addressof(name))
    if wanted not in (name.value or b"").decode().split("/"):
        raise Failed(f"VFS: {name.value!r} is not {wanted}")


def unpushed(db, name):
    return value(db, f"SELECT unpushed FROM quire_status WHERE name = '{name}'")


class Expected:
    """What the databases of a scenario hold `before` and `after` its transaction, and each with the next one on top:
    learnt from ordinary files."""

    def __init__(self, scenario, folder):
        self.before, self.after = {}, {}
        for state in ("before", "after"):
            names = [f"{folder}/{scenario.name}-{state}-{schema}" for schema in scenario.schemas]
            db = connect(names, "unix")
            run(db, *scenario.setup)
            if state == "after":
                run(db, *scenario.steps)
            first = self.all_content(db, scenario)
            run(db, *scenario.each(NEXT))
            then = self.all_content(db, scenario)
            db.close()
            for schema in scenario.schemas:
                getattr(self, state)[schema] = (first[schema], then[schema])
        self.changes = {s: self.before[s] != self.after[s] for s in scenario.schemas}

    @staticmethod
    def all_content(db, scenario):
        return {schema: content(db, schema) for schema in scenario.schemas}

    def state(self, schema, found):
        """`before` or `after`, whichever this content is."""
        if found == self.before[schema][0]:
            return "before"
        if found == self.after[schema][0]:
            return "after"
        raise Failed(f"{schema} holds neither what it held before nor what it should hold after: {found}")
