//! The program's work: numbered transactions whose every trace in the database is known.

use quire_e2e::App;
use rand::RngExt;
use rand::rngs::StdRng;

/// How the program works.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) synchronous: &'static str,
    pub(crate) journal_mode: &'static str,
    /// A small one makes many small files in the data directory, and evicts.
    pub(crate) cache_size: &'static str,
    /// Each transaction also writes to a second volume.
    pub(crate) is_double: bool,
}

/// What a line of the program does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// It opens its database, and says how it works.
    Open,
    /// The transaction of this number; number 0 makes the tables.
    Commit(u64, Size),
    /// A transaction that must never be seen.
    RollBack,
    Push,
    /// With another page size.
    Vacuum(u32),
}

/// What else a transaction does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Size {
    Small,
    /// It rewrites a whole table, which does not fit into SQLite's cache.
    Large,
    /// It deletes what old transactions left.
    Deleting,
}

/// Rows that a large transaction rewrites.
const PADDING: u64 = 150;
/// What this many newest transactions left is never deleted.
const KEPT: u64 = 8;

/// Text that belongs to the number in column `n`, as long as `len` says.
fn text(n: &str, len: &str) -> String {
    format!("substr(replace(hex(zeroblob({len} / 3 + 1)), '00', {n} || '.' || {n} % 7), 1, {len})")
}

/// How long the text of transaction `n` is, in SQL.
const LENGTH: &str = "(n * 7919 % 13 * n * 31 % 20011)";

impl Plan {
    pub(crate) fn schemas(&self) -> impl Iterator<Item = &'static str> {
        ["main", "second"].into_iter().take(1 + usize::from(self.is_double))
    }

    /// What a program does first.
    pub(crate) fn open(&self) -> String {
        let attach = if self.is_double { "ATTACH 'file:second?vfs=quire' AS second;" } else { "" };
        let each = |schema| {
            let (synchronous, journal_mode) = (self.synchronous, self.journal_mode);
            format!("PRAGMA {schema}.synchronous = {synchronous}; PRAGMA {schema}.journal_mode = {journal_mode};")
        };
        format!("{attach} PRAGMA cache_size = 20; {}", self.schemas().map(each).collect::<String>())
    }

    pub(crate) fn sql(&self, step: Step) -> String {
        let each = |sql: &dyn Fn(&str) -> String| self.schemas().map(sql).collect::<String>();
        match step {
            Step::Open => self.open(),
            Step::Commit(0, _) => {
                let create = |schema: &str| {
                    format!(
                        "CREATE TABLE {schema}.numbers (n INTEGER PRIMARY KEY); \
                         CREATE TABLE {schema}.total (many INTEGER, sum INTEGER); \
                         CREATE TABLE {schema}.texts (n INTEGER PRIMARY KEY, body TEXT); \
                         CREATE TABLE {schema}.padding (n INTEGER, body TEXT); \
                         INSERT INTO {schema}.total VALUES (0, 0); \
                         WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < {PADDING}) \
                         INSERT INTO {schema}.padding SELECT 0, {} FROM i;",
                        text("0", "3000")
                    )
                };
                format!("BEGIN; {} COMMIT", each(&create))
            }
            Step::Commit(n, size) => {
                let write = |schema: &str| {
                    let more = match size {
                        Size::Small => String::new(),
                        Size::Large => {
                            format!("UPDATE {schema}.padding SET n = {n}, body = {};", text(&n.to_string(), "3000"))
                        }
                        Size::Deleting => format!("DELETE FROM {schema}.texts WHERE n <= {n} - {KEPT};"),
                    };
                    format!(
                        "INSERT INTO {schema}.numbers VALUES ({n}); \
                         UPDATE {schema}.total SET many = many + 1, sum = sum + {n}; \
                         INSERT INTO {schema}.texts SELECT n, {} FROM (SELECT {n} AS n); {more}",
                        text("n", LENGTH)
                    )
                };
                format!("BEGIN IMMEDIATE; {} COMMIT", each(&write))
            }
            Step::RollBack => {
                let write = |schema: &str| {
                    format!("INSERT INTO {schema}.numbers VALUES (-1); UPDATE {schema}.padding SET n = -1;")
                };
                format!("BEGIN; {} ROLLBACK", each(&write))
            }
            Step::Push => each(&|schema| format!("SELECT quire_push('{schema}');")),
            Step::Vacuum(page_size) => format!("PRAGMA page_size = {page_size}; VACUUM"),
        }
    }
}

/// What each transaction so far did besides writing its number; the first one is that which makes the tables.
#[derive(Clone, Default)]
pub(crate) struct History(Vec<Size>);

impl History {
    /// How many transactions there are.
    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Only so many of them count.
    pub(crate) fn forget_from(&mut self, count: u64) {
        self.0.truncate(count as usize);
    }

    /// The next transaction.
    pub(crate) fn commit(&mut self, size: Size) -> Step {
        self.0.push(size);
        Step::Commit(self.len() - 1, size)
    }

    pub(crate) fn random_step(&mut self, rng: &mut StdRng) -> Step {
        match rng.random_range(0..100) {
            _ if self.0.is_empty() => self.commit(Size::Small),
            0..12 => Step::Push,
            12..18 => Step::RollBack,
            18..22 => Step::Vacuum([1024, 4096, 8192][rng.random_range(0..3)]),
            22..30 => Step::Open,
            30..42 => self.commit(Size::Large),
            42..55 => self.commit(Size::Deleting),
            _ => self.commit(Size::Small),
        }
    }

    /// How many transactions are in a volume: they are there as a whole, and nothing else is.
    pub(crate) fn count(&self, app: &mut App, schema: &str) -> u64 {
        assert_eq!(app.one(&format!("PRAGMA {schema}.integrity_check")), "ok");
        if app.one(&format!("SELECT count(*) FROM {schema}.sqlite_schema")) == "0" {
            return 0;
        }
        let n: u64 = app.one(&format!("SELECT coalesce(max(n), 0) FROM {schema}.numbers")).parse().unwrap();
        assert!(n < self.len(), "transaction {n} was never begun");
        let numbers = app.one(&format!("SELECT count(*), coalesce(min(n), 1) FROM {schema}.numbers"));
        assert_eq!(numbers, format!("{n}|1"), "a gap, or a number that was rolled back");
        let total = app.one(&format!("SELECT many, sum FROM {schema}.total"));
        assert_eq!(total, format!("{n}|{}", n * (n + 1) / 2), "half a transaction");
        let last = |size: Size| (1..=n).rev().find(|n| self.0[*n as usize] == size).unwrap_or(0);
        let large = last(Size::Large);
        let padding =
            format!("SELECT count(*), min(n), max(n), sum(body = {}) FROM {schema}.padding", text("n", "3000"));
        assert_eq!(app.one(&padding), format!("{PADDING}|{large}|{large}|{PADDING}"), "half a large transaction");
        let kept = n - last(Size::Deleting).saturating_sub(KEPT);
        let texts = format!(
            "SELECT count(*), coalesce(max(n), 0), coalesce(sum(body = {}), 0) FROM {schema}.texts",
            text("n", LENGTH)
        );
        assert_eq!(app.one(&texts), format!("{kept}|{n}|{kept}"), "half a transaction with texts");
        n + 1
    }
}
