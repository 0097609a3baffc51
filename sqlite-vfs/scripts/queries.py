"""Random statements on an ordinary file and on Quire: each must give the same rows, or the same error.

The environment names the extension (SCRIPTS_EXTENSION), and witness.c with the file that it writes
(SCRIPTS_WITNESS_LIBRARY, SCRIPTS_WITNESS). QUIRE_STEPS is the number of statements, QUIRE_SEED replays a run.
SQLite keeps few pages in memory here, so that most answers come from the file, and both sides run the same plans on
the same bytes: rows are compared in their order, also where SQL would leave it open.
"""

import os
import random
import sqlite3
import sys

steps = int(os.environ.get("QUIRE_STEPS", "4000"))
seed = int(os.environ.get("QUIRE_SEED") or random.SystemRandom().randrange(1 << 32))
print(f"seed {seed}, {steps} statements, SQLite {sqlite3.sqlite_version}", flush=True)
dice = random.Random(seed)

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
for variable in ("SCRIPTS_EXTENSION", "SCRIPTS_WITNESS_LIBRARY"):
    loader.load_extension(os.environ[variable])

TABLES = ("t0", "t1", "t2", "t3")
COLUMNS = ("a", "b", "c", "d")
PAGE_SIZES = (512, 1024, 4096, 4096, 16384, 65536)


def one(*choices):
    """Any of them; a function is called."""
    choice = dice.choice(choices)
    return choice() if callable(choice) else choice


def value():
    return one(
        "NULL",
        lambda: str(dice.randrange(-9, 99)),
        lambda: str(dice.randrange(-(1 << 63), 1 << 63)),
        lambda: repr(dice.uniform(-1e3, 1e3)),
        lambda: "'" + "".join(dice.choices("abcdeé ", k=dice.randrange(12))) + "'",
        lambda: f"zeroblob({dice.randrange(3000)})",
        lambda: f"hex(zeroblob({dice.randrange(2000)}))",
        lambda: f"x'{dice.randbytes(dice.randrange(20)).hex()}'",
    )


def expression(depth=2):
    if depth == 0:
        return one(value, lambda: dice.choice(COLUMNS), lambda: dice.choice(COLUMNS))
    inner = lambda: expression(depth - 1)
    return one(
        inner,
        lambda: f"({inner()} {one('+', '-', '*', '/', '%', '||', '<', '=', 'IS', '>=', '&', 'AND', 'OR')} {inner()})",
        lambda: f"{one('abs', 'typeof', 'length', 'upper', 'quote', 'hex', 'total_changes() + length')}({inner()})",
        lambda: f"coalesce({inner()}, {inner()})",
        lambda: f"substr({inner()}, {dice.randrange(-3, 9)}, {dice.randrange(9)})",
        lambda: f"CASE WHEN {inner()} THEN {inner()} ELSE {inner()} END",
        lambda: f"({inner()} {one('IN', 'NOT IN')} ({inner()}, {inner()}))",
        lambda: f"({inner()} BETWEEN {inner()} AND {inner()})",
        lambda: f"({one(*COLUMNS)} LIKE '%{one('a', 'b', 'é')}%')",
    )


def where():
    return one("", lambda: f" WHERE {expression()}", lambda: f" WHERE {one(*COLUMNS)} {one('<', '>', '=')} {value()}")


def select():
    table, other = dice.choice(TABLES), dice.choice(TABLES)
    limit = one("", lambda: f" LIMIT {dice.randrange(20)} OFFSET {dice.randrange(5)}")
    order = one("", lambda: f" ORDER BY {one(*COLUMNS)}{one('', ' DESC')}, {expression(1)}")
    return one(
        lambda: f"SELECT {expression()}, {expression()} FROM {table}{where()}{order}{limit}",
        lambda: f"SELECT {one('', 'DISTINCT ')}* FROM {table}{where()}{order}{limit}",
        lambda: f"SELECT count(*), sum(length(a)), min(b), max(c), total(d), avg(a) FROM {table}{where()}",
        lambda: f"SELECT {one(*COLUMNS)} AS k, count(*), group_concat({expression(1)}) FROM {table}{where()} GROUP BY k",
        lambda: f"SELECT x.a, y.b, x.c = y.c FROM {table} x {one('', 'LEFT ')}JOIN {other} y"
        f" ON x.{one(*COLUMNS)} = y.{one(*COLUMNS)} ORDER BY 1, 2, 3 LIMIT 50",
        lambda: f"SELECT a, b FROM {table}{where()} {one('UNION', 'UNION ALL', 'EXCEPT', 'INTERSECT')}"
        f" SELECT c, d FROM {other}",
        lambda: f"SELECT a, (SELECT count(*) FROM {other} o WHERE o.b = {table}.b) FROM {table}{where()}{limit}",
        lambda: f"SELECT a FROM {table} WHERE {one(*COLUMNS)} IN (SELECT {one(*COLUMNS)} FROM {other})",
        lambda: f"SELECT a, rank() OVER (PARTITION BY b ORDER BY c), sum(d) OVER (ORDER BY a) FROM {table}{limit}",
        lambda: f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {dice.randrange(40)})"
        f" SELECT i, {table}.* FROM n JOIN {table} ON i = {table}.a",
    )


def change():
    table = dice.choice(TABLES)
    rows = lambda: ", ".join(f"({', '.join(value() for _ in COLUMNS)})" for _ in range(dice.randrange(1, 9)))
    verb = one("INSERT", "INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE")
    return one(
        lambda: f"{verb} INTO {table} VALUES {rows()}",
        lambda: f"{verb} INTO {table} VALUES {rows()}",
        lambda: f"{verb} INTO {table} SELECT b, c, d, {expression(1)} FROM {one(*TABLES)} LIMIT {dice.randrange(60)}",
        lambda: f"UPDATE {table} SET {one(*COLUMNS)} = {expression(1)}, d = {value()}{where()}",
        lambda: f"DELETE FROM {table}{where()} RETURNING a, b" if dice.random() < 0.3 else
        f"DELETE FROM {table} WHERE b % 7 = {dice.randrange(7)} OR length(c) = {dice.randrange(30)}",
    )


def shape():
    table, column = dice.choice(TABLES), dice.choice(COLUMNS)
    return one(
        lambda: f"CREATE INDEX i{dice.randrange(6)} ON {table}({column}, {expression(1)})",
        lambda: f"CREATE INDEX i{dice.randrange(6)} ON {table}({column}) WHERE {one(*COLUMNS)} IS NOT NULL",
        lambda: f"DROP INDEX i{dice.randrange(6)}",
        lambda: "ANALYZE",
        lambda: "VACUUM",
        lambda: "REINDEX",
        lambda: f"PRAGMA page_size = {dice.choice(PAGE_SIZES)}",
        lambda: f"PRAGMA auto_vacuum = {dice.randrange(3)}",
        lambda: f"PRAGMA incremental_vacuum({dice.randrange(1, 20)})",
        lambda: f"PRAGMA {one('integrity_check', 'page_count', 'freelist_count', 'quick_check', 'page_size')}",
        lambda: f"CREATE TEMP TABLE IF NOT EXISTS s AS SELECT * FROM {table}",
    )


def control():
    return one(
        *["BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "BEGIN IMMEDIATE"],
        *["SAVEPOINT s1", "RELEASE s1", "ROLLBACK TO s1", "SAVEPOINT s2", "ROLLBACK TO s2"],
    )


def statement():
    kind = dice.choices((select, change, shape, control), (60, 28, 4, 8))[0]
    return kind()


def open_database(uri):
    database = sqlite3.connect(uri, uri=True, isolation_level=None)
    database.execute("PRAGMA cache_size = 8")
    return database


def answer(database, sql):
    try:
        # A number and its text are not equal; a float is compared by its digits, NaN and -0.0 too.
        return repr(database.execute(sql).fetchall())
    except sqlite3.Error as error:
        return f"{type(error).__name__}: {error}"


URIS = ("file:queries.db?vfs=unix", "file:queries.db?vfs=quire")
plain, quire = map(open_database, URIS)
history, failures = [], 0


def end(failed):
    """Says what SQLite's own scripts say at their ends."""
    with open(os.environ["SCRIPTS_WITNESS"]) as lines:
        seen = [line.partition("\t")[0] for line in lines]
    print(f"{len(failed)} errors out of {len(history) + 1} tests")
    if failed:
        print("!Failures on these tests:", *failed)
    print(f"quire: opened {seen.count('quire')} on quire, {seen.count('unix')} elsewhere on demand, strays:")
    sys.exit(bool(failed))


def check(sql):
    global failures
    history.append(sql)
    wanted, got = answer(plain, sql), answer(quire, sql)
    if wanted != got:
        print(*history, sep=";\n")
        print(f"the last one differs\n  plain: {wanted[:2000]}\n  Quire: {got[:2000]}")
        print(f"replay with QUIRE_SEED={seed} QUIRE_STEPS={steps}")
        end([f"statement-{len(history)}-of-seed-{seed}"])
    failures += ": " in wanted[:40] and not wanted.startswith("[")


check(f"PRAGMA page_size = {dice.choice(PAGE_SIZES)}")
check(f"PRAGMA auto_vacuum = {dice.randrange(3)}")
check("CREATE TABLE t0(a, b, c, d)")
check("CREATE TABLE t1(a INTEGER PRIMARY KEY, b TEXT, c REAL, d BLOB)")
check("CREATE TABLE t2(a, b INT, c TEXT COLLATE NOCASE, d, UNIQUE(b, c))")
check("CREATE TABLE t3(a TEXT, b, c, d NUMERIC, PRIMARY KEY(a, b)) WITHOUT ROWID")
for _ in range(steps):
    if dice.random() < 0.003:
        plain.close(), quire.close()
        plain, quire = map(open_database, URIS)
    check(statement())
    # Joins of tables that grow for ever would take all the time.
    for table in TABLES:
        if not len(history) % 50:
            check(f"DELETE FROM {table} WHERE (SELECT count(*) FROM {table}) > 400")
if quire.in_transaction:
    check("ROLLBACK")
for table in TABLES:
    check(f"SELECT * FROM {table}")
check("SELECT type, name, sql FROM sqlite_schema ORDER BY name")
check("PRAGMA integrity_check")
print(f"{failures} of the statements gave an error on both")
end([])
