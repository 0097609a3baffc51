"""Runs CPython's tests of its sqlite3 module with every database on Quire: cpython.py LIB.

LIB is the folder that holds CPython's package `test`. The environment names the extension (SCRIPTS_EXTENSION), the
helper of files.c (SCRIPTS_FILES), and witness.c with the file that it writes (SCRIPTS_WITNESS_LIBRARY,
SCRIPTS_WITNESS). Quire is the default VFS, and what the tests open in memory is opened on it too, each time under a
new name: most of them use nothing else. What is printed is what SQLite's own scripts print.
"""

import itertools
import os
import sqlite3
import sys
import unittest

sys.path.insert(0, sys.argv[1])

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
for variable in ("SCRIPTS_EXTENSION", "SCRIPTS_FILES", "SCRIPTS_WITNESS_LIBRARY"):
    loader.load_extension(os.environ[variable])
loader.execute("SELECT quire_default_vfs(1)")
# Most tests open and close one database, and the data directory with it.
loader.execute("SELECT vfs_hold(1)")

real_connect = sqlite3.connect
serial = itertools.count(1)


def connect(*args, **kwargs):
    if args and args[0] == ":memory:":
        args = (f"memory-{next(serial)}.db",) + args[1:]
    elif kwargs.get("database") == ":memory:":
        kwargs["database"] = f"memory-{next(serial)}.db"
    return real_connect(*args, **kwargs)


def seen():
    """The VFS and the file of each database that was opened."""
    with open(os.environ["SCRIPTS_WITNESS"], "a+", errors="surrogateescape") as lines:
        lines.seek(0)
        return [line.rstrip("\n").split("\t") for line in lines]


real_exists = os.path.exists


def exists(name):
    return real_exists(name) or os.path.abspath(os.fsdecode(name)) in (file for _, file in seen())


os.path.exists = exists
sqlite3.connect = sqlite3.dbapi2.connect = connect


class Result(unittest.TextTestResult):
    """Gives each test a file's name of its own, because no volume goes when a file is removed."""

    def startTest(self, test):
        tested = sys.modules[type(test).__module__]
        if hasattr(tested, "TESTFN"):
            tested.TESTFN = f"{os_helper.TESTFN}-{next(serial)}"
        super().startTest(test)


def name_of(test):
    """The file, the class and the method; of a subtest, its test's."""
    test = getattr(test, "test_case", test)
    return ".".join(test.id().split(".")[-3:])


from test.support import os_helper

tests = unittest.defaultTestLoader.loadTestsFromName("test.test_sqlite3")
result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(tests)
failed = dict.fromkeys(name_of(test) for test, _ in result.failures + result.errors)
failed.update(dict.fromkeys(name_of(test) for test in result.unexpectedSuccesses))
loader.execute("SELECT vfs_hold(0)")

print(f"{len(failed)} errors out of {result.testsRun - len(result.skipped) + 1} tests")
if failed:
    print("!Failures on these tests:", *failed)
if result.skipped:
    print("Omitted test cases:", *(f".  {name_of(test)} {why}" for test, why in result.skipped), sep="\n")
strays = [f"{file}:{vfs}" for vfs, file in seen() if "quire" not in vfs]
print(f"quire: opened {len(seen()) - len(strays)} on quire, strays:", *map(ascii, strays))
sys.exit(bool(failed))
