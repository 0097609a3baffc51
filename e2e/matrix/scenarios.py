"""The transactions of the matrix, and the settings that they run under. All content is computed, so that an ordinary
file that takes the same statements is what a volume must equal."""

# Bodies from empty to longer than a page: some rows have overflow pages.
BODY = "hex(zeroblob({rows}.n * 37 % 300)) || {rows}.n"
ROWS = f"""
    WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 90)
    INSERT INTO {{schema}}.t SELECT n, 'tag ' || (n * 7 % 13), {BODY.format(rows="i")}, zeroblob(n % 11) FROM i
"""
TABLES = [
    "CREATE TABLE {schema}.t(id INTEGER PRIMARY KEY, tag TEXT, body TEXT, rest BLOB)",
    "CREATE INDEX {schema}.by_tag ON t(tag, id)",
    ROWS,
]
SMALL = [
    "UPDATE {schema}.t SET tag = 'small' WHERE id % 30 = 7",
    "DELETE FROM {schema}.t WHERE id = 12",
    "INSERT INTO {schema}.t VALUES(200, 'new', 'one more', NULL)",
]
LARGE = [
    "UPDATE {schema}.t SET tag = 'large ' || id, body = body || body",
    "DELETE FROM {schema}.t WHERE id % 9 = 4",
    "INSERT INTO {schema}.t SELECT id + 500, tag, body, rest FROM {schema}.t WHERE id % 3 = 0",
]


# The third statement fails after it has changed rows, and only that statement is undone.
FAILING = [
    *SMALL[:1],
    *LARGE[:1],
    "FAILS: UPDATE {schema}.t SET id = 95 - id % 90, tag = 'undone'",
    *SMALL[1:],
]

SMALL_PAGES = "PRAGMA {schema}.page_size = 1024"


class Scenario:
    """`setup` makes each database what it is before, `steps` is the transaction. A `{schema}` in a statement stands for
    each of `schemas` in turn; one after `FAILS:` breaks a constraint. `together`: it commits changes to all of them.
    `mixed`: only the first has the settings of the combination, the others have some of their own."""

    def __init__(
        self, name, steps, setup=(SMALL_PAGES, *TABLES), schemas=("main",), spills=False, exclusive=False, together=False,
        mixed=False,
    ):
        self.name, self.schemas, self.spills, self.exclusive = name, schemas, spills, exclusive
        self.together, self.mixed = together, mixed
        self.setup = self.each(setup)
        self.steps = self.each(steps)

    def each(self, statements):
        """The statements, for every schema those that name one."""
        found = []
        for statement in statements:
            schemas = self.schemas if "{schema}" in statement else self.schemas[:1]
            found += [statement.format(schema=schema) for schema in schemas]
        return found

    def settings(self, combination):
        """The pragmas of a connection that runs this, with what they must answer."""
        others = {"b": Combination("TRUNCATE", "NORMAL"), "c": Combination("MEMORY", "FULL")} if self.mixed else {}
        for schema in self.schemas:
            combination = others.get(schema, combination)
            if self.exclusive:
                yield f"PRAGMA {schema}.locking_mode = EXCLUSIVE", "exclusive"
            yield f"PRAGMA {schema}.journal_mode = {combination.journal}", combination.in_force
            yield f"PRAGMA {schema}.synchronous = {combination.synchronous}", None
            yield f"PRAGMA {schema}.cache_size = {5 if self.spills else 500}", None
            yield f"PRAGMA {schema}.cache_spill = {'ON' if self.spills else 'OFF'}", None


def one(*steps):
    return ["BEGIN", *steps, "COMMIT"]


SAVEPOINTS = [
    "BEGIN",
    "SAVEPOINT a",
    *LARGE,
    "SAVEPOINT b",
    "DELETE FROM {schema}.t",
    "ROLLBACK TO b",
    "RELEASE b",
    "SAVEPOINT c",
    *SMALL,
    "RELEASE c",
    "ROLLBACK TO a",
    *SMALL,
    "RELEASE a",
    "COMMIT",
]
AUTO_VACUUM = "PRAGMA {{schema}}.auto_vacuum = {mode}"
FULL_VACUUM = (SMALL_PAGES, AUTO_VACUUM.format(mode="FULL"), *TABLES)
INCREMENTAL_VACUUM = (
    SMALL_PAGES,
    AUTO_VACUUM.format(mode="INCREMENTAL"),
    *TABLES,
    "DELETE FROM {schema}.t WHERE id % 3 > 0",
)
THREE = ("main", "b", "c")

SCENARIOS = [
    Scenario("plain", one(*SMALL, "CREATE TABLE {schema}.u(x PRIMARY KEY)", "PRAGMA {schema}.user_version = 5")),
    Scenario("creation", one(*TABLES), setup=()),
    Scenario("spill", one(*LARGE), spills=True),
    Scenario("rollback-after-spill", ["BEGIN", *LARGE, "ROLLBACK"], spills=True),
    Scenario("savepoints", SAVEPOINTS, spills=True),
    Scenario("attached", one(*SMALL), schemas=THREE, together=True),
    Scenario("attached-spill", one(*LARGE), schemas=("main", "b"), spills=True, together=True),
    Scenario("attached-rollback", ["BEGIN", *LARGE, "ROLLBACK"], schemas=("main", "b"), spills=True),
    Scenario("attached-exclusive", one(*SMALL), schemas=("main", "b"), exclusive=True, together=True),
    Scenario("attached-exclusive-spill", one(*LARGE), schemas=("main", "b"), spills=True, exclusive=True, together=True),
    Scenario("attached-savepoints", SAVEPOINTS, schemas=("main", "b"), spills=True, together=True),
    Scenario("attached-failed-statement", one(*FAILING), schemas=("main", "b"), spills=True, together=True),
    Scenario("attached-mixed", one(*SMALL), schemas=THREE, together=True, mixed=True),
    Scenario("attached-mixed-spill", one(*LARGE), schemas=THREE, spills=True, together=True, mixed=True),
    Scenario(
        "attached-auto-vacuum",
        one(*LARGE, "DELETE FROM {schema}.t WHERE id > 9", "UPDATE {schema}.t SET tag = 'left'"),
        setup=FULL_VACUUM,
        schemas=("main", "b"),
        spills=True,
        together=True,
    ),
    Scenario("attached-vacuum", ["PRAGMA b.page_size = 8192", "VACUUM b"], schemas=("main", "b")),
    Scenario("attached-one", one("UPDATE b.t SET tag = 'b only'"), schemas=("main", "b")),
    Scenario("vacuum-smaller-pages", ["PRAGMA page_size = 512", "VACUUM"], setup=(SMALL_PAGES, *TABLES, *LARGE[1:2])),
    Scenario("vacuum-larger-pages", ["PRAGMA page_size = 8192", "VACUUM"], setup=(SMALL_PAGES, *TABLES, *LARGE[1:2])),
    Scenario(
        "auto-vacuum-full",
        one("DELETE FROM {schema}.t WHERE id > 9", "UPDATE {schema}.t SET tag = 'left'"),
        setup=FULL_VACUUM,
    ),
    Scenario(
        "incremental-vacuum",
        one("PRAGMA {schema}.incremental_vacuum(20)", *SMALL),
        setup=INCREMENTAL_VACUUM,
    ),
    Scenario("failed-statement", one(*FAILING), spills=True),
    Scenario("exclusive", one(*SMALL), exclusive=True),
    Scenario("exclusive-savepoints", SAVEPOINTS, spills=True, exclusive=True),
    Scenario(
        "exclusive-incremental-vacuum",
        one("PRAGMA {schema}.incremental_vacuum(20)", *SMALL),
        setup=INCREMENTAL_VACUUM,
        exclusive=True,
    ),
    Scenario("exclusive-spill", one(*LARGE), spills=True, exclusive=True),
    Scenario("exclusive-rollback", ["BEGIN", *LARGE, "ROLLBACK", *one(*SMALL)], spills=True, exclusive=True),
    Scenario(
        "exclusive-auto-vacuum",
        ["BEGIN", *LARGE, "ROLLBACK", *one("DELETE FROM {schema}.t WHERE id > 9")],
        setup=FULL_VACUUM,
        spills=True,
        exclusive=True,
    ),
]


class Combination:
    """A journal mode and a level of `synchronous`."""

    def __init__(self, journal, synchronous):
        self.journal, self.synchronous = journal, synchronous
        # WAL and OFF are answered with the mode that stays.
        self.in_force = "delete" if journal in ("WAL", "OFF") else journal.lower()

    def __str__(self):
        return f"{self.journal.lower()}-{self.synchronous.lower()}"

    def has_super_journal(self, scenario):
        """Whether SQLite decides this transaction over several databases as one."""
        return scenario.together and self.in_force != "memory" and self.synchronous != "OFF"


JOURNALS = ("DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF", "WAL")
LEVELS = ("OFF", "NORMAL", "FULL", "EXTRA")


def combinations(scenario, pruned):
    """The settings to run a scenario under. With `pruned`, those are left out that can make no difference that another
    one does not make:

    - journal modes OFF and WAL stay DELETE, which each of them shows once, on the plain commit;
    - `synchronous` decides which syncs SQLite asks for, and whether there is a super-journal; the journal mode decides
      how a journal ends. Quire's journals are synced by nothing, so the two do not meet: each level is run with
      DELETE, each mode with FULL;
    - EXTRA differs from FULL in the sync of a folder after a rollback journal's deletion, which Quire does not have:
      plain commits and those of several volumes show it.
    """
    if not pruned:
        return [Combination(journal, level) for journal in JOURNALS for level in LEVELS]
    found = [Combination(journal, "FULL") for journal in JOURNALS[:4]]
    found += [Combination("DELETE", level) for level in LEVELS[:2]]
    if scenario.name in ("plain", "attached"):
        found += [Combination("DELETE", "EXTRA")]
    if scenario.name == "plain":
        found += [Combination("OFF", "FULL"), Combination("WAL", "FULL")]
    return found
