//! `cargo xtask demo`: the whole story on a realistic database. Import and push
//! it; open it by name in another program with an empty data directory; query
//! there and see how little is fetched; commits go both ways; exports are
//! compared with the source. Every answer is checked against plain SQLite.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytesize::ByteSize;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::Value;

use crate::paths::{self, Profile};
use crate::reader::{Answer, Reader};
use crate::{dump, process, social, suite};

const VOLUME: &str = "social";

/// What a person asks first, from one row to a whole table.
const QUERIES: [(&str, &str); 7] = [
    ("point: a post by its key", "SELECT author, body FROM post WHERE id = 271828"),
    (
        "point: a user by handle (unique index)",
        "SELECT name, city FROM user WHERE handle = (SELECT handle FROM user WHERE id = 31415)",
    ),
    (
        "join: a user's 20 newest posts with their likes",
        "SELECT p.id, p.body, (SELECT count(*) FROM likes l WHERE l.post = p.id) FROM post p
         WHERE p.author = 1234 ORDER BY p.created DESC LIMIT 20",
    ),
    (
        "join: the newest post of each one a user follows",
        "SELECT u.handle, max(p.created), p.body FROM follow f JOIN user u ON u.id = f.followed
         JOIN post p ON p.author = u.id WHERE f.follower = 4242 GROUP BY u.id ORDER BY 2 DESC",
    ),
    (
        "join: who likes a user's posts, by city",
        "SELECT u.city, count(*) FROM post p JOIN likes l ON l.post = p.id JOIN user u ON u.id = l.user
         WHERE p.author = 77 GROUP BY u.city ORDER BY 2 DESC, 1",
    ),
    ("scan: users by city", "SELECT city, count(*) FROM user GROUP BY city ORDER BY 2 DESC, 1"),
    ("scan: all posts", "SELECT count(*), sum(length(body)) FROM post"),
];

const ALICE_WRITES: &str = "UPDATE user SET city = 'Quito' WHERE id = 1234";
const BOB_WRITES: &str = "INSERT INTO post VALUES(1000001, 4242, 1700000000, 'written on the clone')";

/// Runs the demonstration, and leaves nothing behind.
pub(crate) fn run() -> Result<()> {
    suite::cargo(&["build", "--release"])?;
    let folder = paths::fresh_folder("demo")?;
    let start = Instant::now();
    let demo = Demo {
        source: folder.join("social.db"),
        alice: folder.join("alice"),
        bob: folder.join("bob"),
        store: folder.join("store"),
        folder,
    };
    let size = demo.make_source()?;
    demo.import_and_push(size)?;
    let mut bob = demo.open_clone()?;
    demo.query(&mut bob, size)?;
    demo.commit_both_ways(&mut bob)?;
    demo.compare_exports(&mut bob)?;
    bob.close()?;
    paths::remove_folder(&demo.folder)?;
    println!("\nAll of it held. {:.0} s after the build.", start.elapsed().as_secs_f64());
    Ok(())
}

struct Demo {
    folder: PathBuf,
    /// The database as plain SQLite keeps it; gets every commit too.
    source: PathBuf,
    /// Data directory of the command line.
    alice: PathBuf,
    /// Data directory of the other program.
    bob: PathBuf,
    store: PathBuf,
}

impl Demo {
    fn make_source(&self) -> Result<u64> {
        heading("A social network, made by plain SQLite");
        let start = Instant::now();
        social::generate(&self.source)?;
        let size = self.source.metadata()?.len();
        ensure!(size >= 100 << 20, "the database has only {}", ByteSize(size));
        for table in ["user", "post", "follow", "likes"] {
            let rows = self.plain(&format!("SELECT count(*) FROM {table}"))?;
            say(&format!("rows of {table}"), &rows[0][0]);
        }
        say("database", format!("{} in {}", ByteSize(size), seconds(start)));
        Ok(size)
    }

    fn import_and_push(&self, size: u64) -> Result<()> {
        heading("Alice imports it and pushes it to a folder store, with the command line");
        let start = Instant::now();
        self.alice(&["import", &self.source.display().to_string(), VOLUME])?;
        say("quire import", seconds(start));
        let start = Instant::now();
        self.alice(&["push", VOLUME])?;
        let (bytes, objects) = paths::folder_size(&self.store)?;
        let share = 100.0 * bytes as f64 / size as f64;
        say("quire push", seconds(start));
        say("the store now holds", format!("{} in {objects} objects ({share:.0} % of the database)", ByteSize(bytes)));
        Ok(())
    }

    fn open_clone(&self) -> Result<Reader> {
        heading("Bob opens it by name: another program (Python), its own SQLite, an empty data directory");
        ensure!(!self.bob.exists(), "{} is not empty", self.bob.display());
        let (bob, opened) = Reader::open(&paths::extension(Profile::Release), VOLUME, &self.bob, &self.store_url())?;
        say("open and read the schema", format!("{:.0} ms", opened.seconds * 1000.0));
        Ok(bob)
    }

    fn query(&self, bob: &mut Reader, size: u64) -> Result<()> {
        heading("Bob's queries fetch only the pages that they need; later ones find earlier ones' pages");
        let pages = bob.ask("PRAGMA page_count")?.rows[0][0].as_u64().context("no page count")?;
        println!(
            "  {:<48} {:>5} {:>9} {:>22} {:>24} {:>9}",
            "query", "rows", "time", "pages fetched", "bytes fetched", "requests"
        );
        let mut fetched = 0;
        for (title, sql) in QUERIES {
            let answer = bob.ask(sql)?;
            ensure!(answer.rows == self.plain(sql)?, "{title}: plain SQLite answers otherwise");
            fetched += answer.moved("pages_fetched")?;
            print_query(title, &answer, pages, size)?;
        }
        let again = bob.ask(QUERIES[0].1)?;
        ensure!(again.moved("pages_fetched")? == 0, "a page that was read before was fetched again");
        print_query("the first one again", &again, pages, size)?;
        ensure!(fetched > 0 && fetched < pages, "{fetched} of {pages} pages were fetched: this shows nothing");
        Ok(())
    }

    fn commit_both_ways(&self, bob: &mut Reader) -> Result<()> {
        heading("A commit on one side appears on the other after a pull");
        let city = "SELECT city FROM user WHERE id = 1234";
        let before = bob.ask(city)?.text()?.to_owned();
        self.alice(&["sql", VOLUME, ALICE_WRITES])?;
        self.alice(&["push", VOLUME])?;
        ensure!(bob.ask(city)?.text()? == before, "Bob sees a commit that he has not pulled");
        say("Alice moves to Quito and pushes; Bob still reads", before);
        say("Bob: SELECT quire_pull()", bob.ask("SELECT quire_pull()")?.text()?);
        let after = bob.ask(city)?;
        ensure!(after.text()? == "Quito", "after the pull Bob reads {}", after.text()?);
        say("Bob now reads", format!("Quito ({} pages fetched)", after.moved("pages_fetched")?));

        bob.ask(BOB_WRITES)?;
        say("Bob writes a post: SELECT quire_push()", bob.ask("SELECT quire_push()")?.text()?);
        self.alice(&["pull", VOLUME])?;
        let body = self.alice(&["sql", VOLUME, "SELECT body FROM post WHERE id = 1000001"])?;
        ensure!(body.contains("written on the clone"), "after the pull Alice reads {body:?}");
        say("Alice pulls and reads", "written on the clone");
        Connection::open(&self.source)?.execute_batch(&format!("{ALICE_WRITES}; {BOB_WRITES};"))?;
        Ok(())
    }

    fn compare_exports(&self, bob: &mut Reader) -> Result<()> {
        heading("Both exports equal the source (which got the same two commits from plain SQLite)");
        let (by_alice, by_bob) = (self.folder.join("alice.db"), self.folder.join("bob.db"));
        self.alice(&["export", VOLUME, &by_alice.display().to_string()])?;
        bob.ask(&format!("SELECT quire_export('{}')", by_bob.display()))?;
        let (wanted, bytes) = dump::hash(&self.source)?;
        say("full dump of the source", format!("{wanted} ({})", ByteSize(bytes)));
        for (name, export) in [("of Alice's export", &by_alice), ("of Bob's export", &by_bob)] {
            let (got, _) = dump::hash(export)?;
            say(name, got);
            ensure!(got == wanted, "the dump {name} differs from the source's");
        }
        Ok(())
    }

    /// Runs `quire` in Alice's data directory and gives what it printed.
    fn alice(&self, words: &[&str]) -> Result<String> {
        let mut quire = Command::new(paths::program(Profile::Release, "quire"));
        process::output(process::with_store(quire.args(words), &self.alice, &self.store_url()))
    }

    fn store_url(&self) -> String {
        format!("file://{}", self.store.display())
    }

    /// What plain SQLite answers on the source.
    fn plain(&self, sql: &str) -> Result<Vec<Value>> {
        plain_rows(&self.source, sql).with_context(|| format!("plain SQLite, asked {sql}"))
    }
}

fn plain_rows(database: &Path, sql: &str) -> Result<Vec<Value>> {
    let db = Connection::open(database)?;
    let mut statement = db.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let row: Result<Vec<Value>> = (0..columns).map(|column| Ok(json(row.get_ref(column)?))).collect();
        all.push(Value::from(row?));
    }
    Ok(all)
}

fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into(),
    }
}

fn print_query(title: &str, answer: &Answer, pages: u64, size: u64) -> Result<()> {
    let time = format!("{:.1} ms", answer.seconds * 1000.0);
    let fetched = format!("{} of {pages}", answer.moved("pages_fetched")?);
    let bytes = format!("{} of {}", ByteSize(answer.moved("bytes_in")?), ByteSize(size));
    let requests = answer.moved("requests")?;
    println!("  {title:<48} {:>5} {time:>9} {fetched:>22} {bytes:>24} {requests:>9}", answer.rows.len());
    Ok(())
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn say(what: &str, value: impl Display) {
    println!("  {what:<48} {value}");
}

fn seconds(start: Instant) -> String {
    format!("{:.1} s", start.elapsed().as_secs_f64())
}
