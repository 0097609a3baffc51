//! Real files: in by the command line, through the store to another data
//! directory, changed there by a program that uses the extension, and back.

#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use quire_e2e::{Machine, Measured, World, content, measure, text_of};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const MIB: u64 = 1 << 20;
/// What a command of any size may take.
const MEMORY: u64 = 128 * MIB;

/// Tables as real databases have them, with rows longer than a page, and holes.
const SAMPLE: &str = "
    CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, data BLOB);
    CREATE INDEX items_by_name ON items (name);
    CREATE TABLE pairs (a TEXT, b REAL, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE VIEW long_names AS SELECT * FROM items WHERE length(name) > 6;
    CREATE TRIGGER gone AFTER DELETE ON items BEGIN INSERT OR IGNORE INTO pairs VALUES (old.name, old.id / 7.0); END;
    BEGIN;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
    INSERT INTO items SELECT i, 'item ' || i, randomblob(i % 300 + (i % 97 = 0) * 20000) FROM n;
    DELETE FROM items WHERE id % 11 = 0;
    COMMIT;";

/// What any program might do to it. It gives the same result wherever it runs.
const CHANGE: &str = "
    BEGIN;
    UPDATE items SET name = name || ' changed', data = data || x'00ff' WHERE id % 3 = 0;
    DELETE FROM items WHERE id BETWEEN 500 AND 1500;
    INSERT INTO items (name, data) SELECT name || ' again', zeroblob(id % 5000) FROM items WHERE id % 13 = 0;
    COMMIT;
    CREATE TABLE late AS SELECT a, count(*) AS many FROM pairs GROUP BY substr(a, 1, 7);";

fn one_line(sql: &str) -> String {
    sql.replace('\n', " ")
}

/// Makes a database with plain SQLite.
fn make(world: &World, sql: &str) -> PathBuf {
    let source = world.path("source.db");
    let mut app = world.machine("nobody").plain_app(&source);
    app.sql(&one_line(sql));
    app.finish();
    source
}

/// Brings a database to another data directory, changes it there by the
/// extension, and brings it back; plain SQLite does the same to a copy. `VACUUM`
/// comes last, and in between everybody looks at everything.
fn travel(world: &World, source: &Path, change: &str) {
    let (here, there) = (world.machine("here"), world.machine("there"));
    let expected = world.path("expected.db");
    std::fs::copy(source, &expected).unwrap();
    here.ok(&["import", text_of(source), "app"]);
    here.ok(&["push", "app"]);
    there.ok(&["clone", "app"]);
    there.holds("app", &expected);

    let (mut plain, mut app) = (here.plain_app(&expected), there.app("app"));
    for sql in [change, "VACUUM"] {
        for app in [&mut plain, &mut app] {
            app.sql(&one_line(sql));
            assert_eq!(app.one("PRAGMA integrity_check"), "ok");
        }
        assert_eq!(plain.one("PRAGMA page_count"), app.one("PRAGMA page_count"), "after {sql}");
    }
    app.sql("SELECT quire_push()");
    app.finish();
    plain.finish();
    there.holds("app", &expected);

    here.ok(&["pull", "app"]);
    here.holds("app", &expected);
    let verified = here.json(&["verify", "--deep", "app"]);
    assert_eq!(verified["integrity_check"], true, "{verified}");
}

#[test]
fn every_page_size_travels() {
    for page_size in [512, 1024, 4096, 8192, 65536] {
        let world = World::new();
        let source = make(&world, &format!("PRAGMA page_size = {page_size}; {SAMPLE}"));
        travel(&world, &source, CHANGE);
    }
}

#[test]
fn a_page_size_may_change_on_the_way() {
    for (from, to) in [(512, 65536), (65536, 1024)] {
        let world = World::new();
        let source = make(&world, &format!("PRAGMA page_size = {from}; {SAMPLE}"));
        travel(&world, &source, &format!("{CHANGE} PRAGMA page_size = {to}; VACUUM;"));
    }
}

#[test]
fn both_kinds_of_auto_vacuum_travel() {
    let world = World::new();
    let source = make(&world, &format!("PRAGMA auto_vacuum = FULL; {SAMPLE}"));
    travel(&world, &source, &format!("{CHANGE} DROP TABLE late;"));

    let world = World::new();
    let source = make(&world, &format!("PRAGMA auto_vacuum = INCREMENTAL; {SAMPLE}"));
    travel(&world, &source, &format!("PRAGMA incremental_vacuum(7); {CHANGE} PRAGMA incremental_vacuum;"));
}

#[test]
fn an_empty_database_travels() {
    let fill = "CREATE TABLE items (name TEXT); INSERT INTO items VALUES ('the first');";
    for empty in ["", "PRAGMA user_version = 3;", "CREATE TABLE t(x); DROP TABLE t;", "CREATE TABLE hollow (x);"] {
        let world = World::new();
        let source = make(&world, empty);
        travel(&world, &source, fill);
    }
}

#[test]
fn full_text_and_r_tree_tables_travel() {
    let world = World::new();
    let source = make(
        &world,
        &format!(
            "{SAMPLE}
             CREATE VIRTUAL TABLE words USING fts5(name, body);
             CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, y0, y1);
             INSERT INTO words SELECT name, name || ' of many ' || hex(data) FROM items WHERE length(data) < 200;
             INSERT INTO places SELECT id, id, id + 1, -id, id FROM items;"
        ),
    );
    travel(
        &world,
        &source,
        &format!(
            "{CHANGE}
             INSERT INTO words SELECT name, 'found again' FROM items WHERE id % 5 = 0;
             DELETE FROM words WHERE words MATCH 'many' AND rowid % 2 = 0;
             INSERT INTO words (words) VALUES ('optimize');
             UPDATE places SET x1 = x1 + 10 WHERE id % 3 = 0;
             DELETE FROM places WHERE x0 > 2000;"
        ),
    );
    let mut app = world.machine("here").app("app");
    let found = app.one("SELECT count(*) FROM words WHERE words MATCH 'found NOT many'");
    assert_eq!(found, app.one("SELECT count(*) FROM items WHERE id % 5 = 0"));
    let inside = "SELECT count(*), sum(id) FROM places WHERE x0 >= 100 AND x1 <= 1000";
    assert_eq!(app.one(inside), world.machine("nobody").plain_app(&world.path("expected.db")).one(inside));
}

#[test]
fn a_database_travels_while_another_process_writes_to_its_write_ahead_log() {
    const TRANSFER: &str = "BEGIN; UPDATE accounts SET money = money - 1 WHERE id = 1 + abs(random()) % 200; \
         UPDATE accounts SET money = money + 1 WHERE id = 1 + abs(random()) % 200; \
         INSERT INTO transfers VALUES ((SELECT count(*) FROM transfers) + 1, randomblob(300)); COMMIT";
    let world = World::new();
    let here = world.machine("here");
    let source = make(
        &world,
        "PRAGMA journal_mode = WAL;
         CREATE TABLE accounts (id INTEGER PRIMARY KEY, money INTEGER, data BLOB);
         CREATE TABLE transfers (n INTEGER PRIMARY KEY, data BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
         INSERT INTO accounts SELECT i, 100, zeroblob(4000) FROM n;",
    );
    let mut writer = here.plain_app(&source);
    for round in 0..3 {
        // Nobody waits for the answers: the program writes all the time that the import takes.
        (0..200).for_each(|_| writer.send(TRANSFER));
        (0..20).for_each(|_| drop(writer.answer().unwrap().unwrap()));
        let name = format!("live-{round}");
        here.ok(&["import", text_of(&source), &name]);
        let written = 200 * (round + 1);
        (20..200).for_each(|_| drop(writer.answer().unwrap().unwrap()));
        here.ok(&["push", &name]);

        let mut app = world.machine("there").app(&name);
        assert_eq!(app.one("SELECT sum(money) FROM accounts"), "20000");
        let transfers = app.one("SELECT max(n) = count(*), max(n) FROM transfers");
        let (gapless, newest) = transfers.split_once('|').unwrap();
        assert_eq!(gapless, "1");
        assert!((200 * round + 20..=written).contains(&newest.parse().unwrap()), "{transfers}");
        app.sql(&format!("{TRANSFER}; VACUUM; SELECT quire_push()"));
        assert_eq!(app.one("PRAGMA integrity_check"), "ok");
        app.finish();
        here.ok(&["pull", &name]);
        here.ok(&["export", "--force", &name, "copy.db"]);
        let copy = world.path("copy.db");
        assert_eq!(content(&copy)["table transfers"].0, newest.parse::<u64>().unwrap() + 1);
    }
    writer.finish();
}

#[test]
fn a_database_over_one_gibibyte_travels() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    // Rows of a mebibyte, one of eight not compressible; SQLite leaves out the page at 1 GiB.
    let source = make(
        &world,
        "CREATE TABLE large (id INTEGER PRIMARY KEY, data BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1030)
         INSERT INTO large SELECT i, iif(i % 8, zeroblob(1 << 20), randomblob(1 << 20)) FROM n;",
    );
    assert!(source.metadata().unwrap().len() > 1 << 30);
    let run = |machine: &Machine<'_>, words: &[&str]| frugal("1 GiB database", machine, words);
    run(&here, &["import", text_of(&source), "app"]);
    run(&here, &["push", "app"]);

    let change = "UPDATE large SET data = zeroblob(3) WHERE id < 20; \
         INSERT INTO large SELECT id + 2000, data FROM large WHERE id % 40 = 0;";
    let (mut plain, mut app) = (here.plain_app(&source), there.app("app"));
    for app in [&mut plain, &mut app] {
        app.sql(change);
        app.sql("VACUUM");
        assert!(app.one("SELECT page_count * page_size > 1 << 30 FROM pragma_page_count, pragma_page_size") == "1");
    }
    plain.finish();
    app.sql("SELECT quire_push()");
    app.finish();
    std::fs::remove_dir_all(there.data_dir()).unwrap();

    run(&here, &["pull", "app"]);
    let copy = world.path("copy.db");
    run(&here, &["export", "app", text_of(&copy)]);
    assert_eq!(content(&copy), content(&source));
}

#[test]
fn a_file_of_one_and_a_half_gibibytes_takes_bounded_memory() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    let source = world.path("file");
    let mut file = File::create(&source).unwrap();
    let mut rng = StdRng::seed_from_u64(7);
    let mut part = vec![0; 1 << 20];
    for n in 0..1536 {
        // A quarter does not compress; no two parts are equal.
        rng.fill_bytes(&mut part[..1 << 18]);
        part[1 << 18] = n as u8;
        file.write_all(&part).unwrap();
    }
    file.write_all(b"and a last page that is not full").unwrap();
    drop((file, part));
    let run = |machine: &Machine<'_>, words: &[&str]| frugal("1.5 GiB file", machine, words);
    run(&here, &["import", text_of(&source), "file"]);
    run(&here, &["push", "file"]);
    std::fs::remove_dir_all(here.data_dir()).unwrap();
    run(&there, &["clone", "file"]);
    let copy = world.path("copy");
    run(&there, &["export", "file", text_of(&copy)]);
    assert!(same_bytes(&source, &copy));
}

/// Runs a command that must not take much memory however much it moves; states what it took.
fn frugal(what: &str, machine: &Machine<'_>, words: &[&str]) -> Measured {
    let measured = measure(&mut machine.command(words));
    let (peak, seconds) = (measured.peak_bytes / MIB, measured.time.as_secs_f64());
    println!("{what}: quire {}: {peak} MiB at its peak, {seconds:.1} s", words[0]);
    assert!(measured.peak_bytes <= MEMORY, "quire {}: {peak} MiB", words[0]);
    measured
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    let mut files = [a, b].map(|path| std::io::BufReader::with_capacity(1 << 20, File::open(path).unwrap()));
    loop {
        let [left, right] = files.each_mut().map(|file| std::io::BufRead::fill_buf(file).unwrap());
        let len = left.len().min(right.len());
        if left[..len] != right[..len] {
            return false;
        }
        if len == 0 {
            return left.len() == right.len();
        }
        files.each_mut().into_iter().for_each(|file| std::io::BufRead::consume(file, len));
    }
}
