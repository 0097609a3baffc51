//! A data directory is copied, file by file, while a program commits and pushes in it, and then both are used.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use quire_e2e::{Answer, App, Machine, World, content_in, files_below};
use quire_testkit::seed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::case::SMALL_CACHE;
use crate::model::text;

/// So many copies of each kind are made unless it is said otherwise, and at most.
const ROUNDS: usize = 2;
const MOST_ROUNDS: usize = 200;
/// Transactions of the original in a round.
const TRANSACTIONS: u32 = 80;
const ROWS: u32 = 60;

const CREATE: &str = "CREATE TABLE numbers (n INTEGER PRIMARY KEY, body TEXT); CREATE TABLE own (who TEXT); \
     CREATE TABLE total (many INTEGER, sum INTEGER); INSERT INTO total VALUES (0, 0)";

/// A transaction of which nothing else is a part.
fn transaction(n: u32) -> String {
    format!(
        "BEGIN; INSERT INTO numbers SELECT n, {} FROM (SELECT {n} AS n); \
         UPDATE total SET many = many + 1, sum = sum + {n}; \
         UPDATE padding SET version = {n}, body = {} WHERE {n} % 4 = 0; COMMIT",
        text(0, 1500),
        text(n, 1000)
    )
}

/// The newest transaction that is there. It and all before it are there as a whole, and nothing else is.
fn newest(app: &mut App) -> u32 {
    assert_eq!(app.one("PRAGMA integrity_check"), "ok");
    let n: u32 = app.one("SELECT coalesce(max(n), 0) FROM numbers").parse().unwrap();
    // A copy that was torn and cloned again may have none, of which the sum is NULL.
    let numbers = format!("SELECT count(*), coalesce(sum(body = {}), 0) FROM numbers", text(0, 1500));
    assert_eq!(app.one(&numbers), format!("{n}|{n}"), "a gap, or a wrong page");
    assert_eq!(app.one("SELECT many, sum FROM total"), format!("{n}|{}", n * (n + 1) / 2), "half a transaction");
    let last = n - n % 4;
    let padding = format!("SELECT count(*), sum(version = {last} AND body = {}) FROM padding", text(last, 1000));
    assert_eq!(app.one(&padding), format!("{ROWS}|{ROWS}"), "half a large transaction, or a wrong page");
    n
}

/// Files in the order in which the folder names them, or the other way round; one that is gone meanwhile is skipped.
fn copy_folder(from: &Path, to: &Path, is_reversed: bool) {
    fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = match fs::read_dir(from) {
        Ok(entries) => entries.map(Result::unwrap).collect(),
        Err(e) if e.kind() == ErrorKind::NotFound => return,
        Err(e) => panic!("{}: {e}", from.display()),
    };
    if is_reversed {
        entries.reverse();
    }
    for entry in entries {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to, is_reversed);
        } else if let Err(e) = fs::copy(entry.path(), &to) {
            assert_eq!(e.kind(), ErrorKind::NotFound, "{}: {e}", entry.path().display());
        }
    }
}

/// Opens a copy. A file that was written to while it was copied may be torn: pieces of it are older than what follows
/// them. That never was on any disk; it must be said, and the way out that is named must be one. True: it was so.
fn open_copy(copy: &Machine<'_>) -> (App, bool) {
    let app = copy.app("first");
    if app.opened().is_ok() {
        return (app, false);
    }
    app.finish();
    let refused = copy.run(&["status"]);
    refused.failed(4, "a record is damaged, and later ones prove that it was whole");
    assert!(refused.stderr.contains("`quire rm NAME --force` and `quire clone NAME`"), "{refused:?}");
    copy.ok(&["rm", "first", "--force"]);
    copy.ok(&["clone", "first"]);
    (copy.app("first"), true)
}

/// Whether a push succeeded; otherwise the volume must be diverged.
fn is_pushed(answer: Answer) -> bool {
    match answer {
        Ok(_) => true,
        Err(failure) => {
            assert!(failure.message.contains("diverged"), "{failure:?}");
            false
        }
    }
}

/// A machine goes on with the store. What it had for itself is kept; says how many transactions that were.
fn go_on(machine: &Machine<'_>) -> Option<u32> {
    let state = machine.json(&["status", "first"])[0]["state"].clone();
    let mut kept = None;
    if state == "diverged" {
        let reset = machine.json(&["reset", "first"]);
        let mut app = machine.app(reset["kept_as"].as_str().unwrap());
        kept = Some(newest(&mut app));
        app.finish();
    }
    machine.ok(&["pull", "first"]);
    assert_eq!(machine.json(&["status", "first"])[0]["state"], "clean");
    kept
}

/// What a round came to.
struct Came {
    copied: u32,
    copy_pushed: bool,
    original_pushed: bool,
}

fn round(world: &World, is_reversed: bool, before: u32, push_every: u32) -> Came {
    let machine = world.machine("machine");
    let copy = world.machine("copy");
    let mut original = machine.app("first");
    original.sql(&format!(
        "{CREATE}; CREATE TABLE padding (n INTEGER PRIMARY KEY, version INTEGER, body TEXT); \
         WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < {ROWS}) \
         INSERT INTO padding SELECT n, 0, {} FROM i",
        text(0, 1000)
    ));
    original.sql("SELECT quire_push()");
    for n in 1..=TRANSACTIONS {
        original.send(&transaction(n));
        original.send(if n % push_every == 0 { "SELECT quire_push()" } else { "SELECT 1" });
    }
    let mut answers = Vec::new();
    answers.extend((0..2 * before).map(|_| original.answer().unwrap()));
    // The original works on meanwhile.
    copy_folder(machine.data_dir(), copy.data_dir(), is_reversed);
    let (mut second, is_torn) = open_copy(&copy);
    let copied = newest(&mut second);
    let least = if is_torn { 0 } else { before };
    assert!((least..=TRANSACTIONS).contains(&copied), "{least} were there before the copy, and {copied} are in it");
    second.sql("INSERT INTO own VALUES ('copy')");
    let copy_pushed = is_pushed(second.try_sql("SELECT quire_push()"));

    while answers.len() < 2 * TRANSACTIONS as usize {
        answers.push(original.answer().unwrap());
    }
    let mut pushed = 0;
    for (n, answer) in (1..).zip(answers.chunks(2)) {
        answer[0].as_ref().unwrap();
        if n % push_every == 0 && is_pushed(answer[1].clone()) {
            pushed = n;
        }
    }
    original.sql("INSERT INTO own VALUES ('original')");
    let original_pushed = is_pushed(original.try_sql("SELECT quire_push()"));
    assert_eq!(newest(&mut original), TRANSACTIONS);
    original.finish();
    second.finish();
    assert!(!(copy_pushed && original_pushed), "both have pushed, and neither knows of the other");

    // Nothing that was acknowledged is lost: it is in the store, or kept under another name.
    let kept = [go_on(&machine), go_on(&copy)];
    assert_eq!(kept, [(!original_pushed).then_some(TRANSACTIONS), (!copy_pushed).then_some(copied)]);
    let contents = [&machine, &copy, &world.machine("fresh")].map(|machine| {
        let mut app = machine.app("first");
        let there = newest(&mut app);
        assert!(there >= pushed, "{pushed} were pushed, and {there} are in the store");
        assert!(!copy_pushed || there >= copied);
        assert!(!original_pushed || there == TRANSACTIONS);
        let own = app.sql("SELECT who FROM own ORDER BY who");
        assert_eq!(
            (own.contains(&"copy".to_owned()), own.contains(&"original".to_owned())),
            (copy_pushed, original_pushed)
        );
        let content = content_in(&mut app, "main");
        app.finish();
        content
    });
    assert!(contents.iter().all(|content| *content == contents[0]), "they do not agree");
    Came { copied, copy_pushed, original_pushed }
}

fn copied_in_use(cache_size: &str, is_reversed: bool) {
    let rounds = std::env::var("QUIRE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap()).min(MOST_ROUNDS);
    let mut rng = StdRng::seed_from_u64(seed());
    for turn in 0..rounds {
        let world = World::with_variables(vec![("QUIRE_CACHE_SIZE".to_owned(), cache_size.to_owned())]);
        let before = rng.random_range(1..TRANSACTIONS / 2);
        // If the original pushes only after all of them, the copy is the first.
        let push_every = [5, 2 * TRANSACTIONS][turn % 2];
        let Came { copied, copy_pushed, original_pushed } = round(&world, is_reversed, before, push_every);
        println!("{before} before the copy, {copied} in it; pushed: copy {copy_pushed}, original {original_pushed}");
    }
}

#[test]
fn a_copy_of_which_a_file_is_torn_says_so_and_can_be_cloned_again() {
    let world = World::new();
    let (machine, copy) = (world.machine("machine"), world.machine("copy"));
    let mut original = machine.app("first");
    original.sql("CREATE TABLE t (n INTEGER, body TEXT); SELECT quire_push()");
    (0..4).for_each(|n| drop(original.sql(&format!("INSERT INTO t VALUES ({n}, hex(randomblob(3000)))"))));
    copy_folder(machine.data_dir(), copy.data_dir(), false);
    let log = files_below(copy.data_dir()).into_iter().find(|path| path.ends_with("log/00000001.qlog")).unwrap();
    let mut bytes = fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 2..end / 2 + 512].fill(0);
    fs::write(&log, bytes).unwrap();
    let (mut second, is_torn) = open_copy(&copy);
    assert!(is_torn, "nobody has noticed");
    assert_eq!(second.one("SELECT count(*) FROM t"), "0");
    second.finish();
}

#[test]
fn commits_that_the_original_and_its_copy_both_push_are_there_once() {
    let world = World::new();
    let (machine, copy) = (world.machine("machine"), world.machine("copy"));
    let mut original = machine.app("first");
    original.sql("CREATE TABLE t (n INTEGER); SELECT quire_push()");
    original.sql("INSERT INTO t VALUES (1)");
    copy_folder(machine.data_dir(), copy.data_dir(), false);
    let mut second = copy.app("first");
    for app in [&mut original, &mut second] {
        app.sql("SELECT quire_push()");
        assert_eq!(app.one("SELECT state, base_lsn, store_lsn, unpushed FROM quire_status"), "clean|2|2|0");
    }
    second.sql("INSERT INTO t VALUES (2); SELECT quire_push()");
    original.sql("SELECT quire_pull()");
    assert_eq!(original.sql("SELECT n FROM t"), ["1", "2"]);
    original.finish();
    second.finish();
}

#[test]
fn a_data_directory_copied_in_use_is_used_twice() {
    copied_in_use("2GiB", false);
}

#[test]
fn a_data_directory_copied_in_use_in_reverse_is_used_twice() {
    copied_in_use("2GiB", true);
}

#[test]
fn a_data_directory_of_many_small_files_copied_in_use_is_used_twice() {
    copied_in_use(SMALL_CACHE, false);
}

#[test]
fn a_data_directory_of_many_small_files_copied_in_use_in_reverse_is_used_twice() {
    copied_in_use(SMALL_CACHE, true);
}
