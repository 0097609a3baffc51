"""The client scenario for sqlite3, pysqlite3 and apsw: client.py MODULE EXTENSION NAME ROLE (see README.md)."""

import importlib
import sys

module, extension, name, role = sys.argv[1:]
library = importlib.import_module(module)


def connect(file):
    if module == "apsw":
        flags = library.SQLITE_OPEN_READWRITE | library.SQLITE_OPEN_CREATE | library.SQLITE_OPEN_URI
        return library.Connection(file, flags)
    return library.connect(file, uri=True)


def rows(sql, *values):
    return [tuple(row) for row in db.execute(sql, values)]


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")


def expect_tracks(count, seconds):
    expect("tracks", rows("SELECT count(*), sum(seconds) FROM track"), [(count, seconds)])


class ChangedMyMind(Exception):
    pass


def write():
    db.execute("CREATE TABLE track(id INTEGER PRIMARY KEY, title TEXT NOT NULL, seconds REAL)")
    with db:
        tracks = [(i, f"Track {i}", i / 4) for i in range(1, 1001)]
        db.executemany("INSERT INTO track VALUES(?, ?, ?)", tracks)
    try:
        with db:
            db.execute("DELETE FROM track")
            expect_tracks(0, None)
            raise ChangedMyMind
    except ChangedMyMind:
        pass
    expect_tracks(1000, 125125.0)
    expect("state", rows("SELECT state FROM quire_status WHERE name = ?", name), [("ahead",)])
    print(rows("SELECT quire_push()")[0][0])
    expect("state", rows("SELECT state FROM quire_status WHERE name = ?", name), [("clean",)])


def clone():
    expect_tracks(1000, 125125.0)
    expect("a track", rows("SELECT title FROM track WHERE id = ?", 500), [("Track 500",)])


def append():
    with db:
        db.execute("INSERT INTO track VALUES(?, ?, ?)", (1001, "Coda", 61.5))
    expect_tracks(1001, 125186.5)
    print(rows("SELECT quire_push()")[0][0])


def pull():
    expect_tracks(1000, 125125.0)
    print(rows("SELECT quire_pull()")[0][0])
    expect_tracks(1001, 125186.5)


loader = connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(extension)

db = connect(f"file:{name}?vfs=quire")
db.execute("PRAGMA busy_timeout = 5000")
expect("volumes open", rows("SELECT name FROM quire_status"), [(name,)])
if module == "apsw":
    expect("VFS", db.vfsname("main"), "quire")

{"write": write, "clone": clone, "append": append, "pull": pull}[role]()
expect("integrity", rows("PRAGMA integrity_check"), [("ok",)])
db.close()
