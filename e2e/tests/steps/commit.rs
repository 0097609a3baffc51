//! Kills inside transactions, imports, and what the log does of itself.

use quire_e2e::{World, files_below};

use crate::case::{Act, Case, PUSH};
use crate::model::{import, text};
use crate::trial::Trial;

/// Small transactions that may be run twice.
fn transactions(count: u32) -> Vec<String> {
    let each = |n: u32| {
        let body = text(n, 600);
        format!(
            "BEGIN; INSERT OR REPLACE INTO t SELECT n, {body} FROM (SELECT {n} + 1000 AS n); UPDATE t SET body = {body} WHERE n = {n}; COMMIT"
        )
    };
    (1..=count).map(each).collect()
}

fn pushed(world: &World) {
    import(world, "first", 100);
    world.machine("machine").ok(&["push"]);
}

/// A transaction that does not fit into SQLite's cache.
fn large(schema: &str) -> String {
    format!("UPDATE {schema}.t SET body = {}", text(7, 900))
}

#[test]
fn durable_transactions() {
    Trial::new(Case::sql("transactions", transactions(4)), pushed).run();
}

#[test]
fn a_first_transaction_makes_a_volume() {
    let create = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, body TEXT)".to_owned();
    let lines = std::iter::once(create).chain(transactions(1)).collect();
    Trial::new(Case::sql("a first transaction", lines), |_| {}).run();
}

#[test]
fn a_transaction_that_spills() {
    let lines = vec!["PRAGMA cache_size = 10".to_owned(), large("main")];
    Trial::new(Case::sql("a transaction that spills", lines), pushed).run();
}

#[test]
fn a_transaction_over_two_volumes() {
    let lines = vec![
        "ATTACH 'file:second?vfs=quire' AS second".to_owned(),
        "PRAGMA cache_size = 10".to_owned(),
        format!("BEGIN; {}; {}; COMMIT", large("main"), large("second")),
    ];
    let case = Case { volumes: &["first", "second"], ..Case::sql("a transaction over two volumes", lines) };
    Trial::new(case, |world| {
        import(world, "first", 50);
        import(world, "second", 50);
    })
    .run();
}

#[test]
fn transactions_that_go_straight_to_the_store() {
    let case = Case::sql("sync=commit", Vec::new());
    let case = Case { act: Act::Sql { parameters: "&sync=commit", lines: transactions(2) }, then: &[], ..case };
    Trial::new(case, pushed).run();
}

#[test]
fn a_vacuum_to_another_page_size() {
    let lines = vec!["PRAGMA page_size = 1024; VACUUM".to_owned()];
    Trial::new(Case::sql("a vacuum", lines), pushed).run();
}

#[test]
fn an_import_of_a_database() {
    let case = Case::once("import", &["import", "first.db", "first"], "volume first exists already");
    let case = Case { then: PUSH, ..case };
    Trial::new(case, |world| {
        import(world, "first", 200);
        world.machine("machine").ok(&["rm", "--force", "first"]);
    })
    .run();
}

#[test]
fn an_import_of_another_file() {
    let case = Case::once("import of a file", &["import", "content", "file"], "volume file exists already");
    let case = Case { volumes: &["file"], then: PUSH, ..case };
    Trial::new(case, |world| drop(world.file("content", numbers(300_001)))).run();
}

/// Bytes that do not repeat.
pub(crate) fn numbers(len: usize) -> Vec<u8> {
    (0..len as u64 / 8 + 1)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_le_bytes())
        .take(len)
        .collect()
}

#[test]
fn the_log_is_compacted() {
    let lines = transactions(2);
    let trial = Trial::new(Case::sql("compaction", lines), |world| {
        import(world, "first", 100);
        let machine = world.machine("machine");
        // Each session begins a log file.
        (0..70).for_each(|n| drop(machine.ok(&["sql", "first", &format!("UPDATE t SET body = {n} WHERE n = 7")])));
        machine.ok(&["export", "--force", "first", "first.db"]);
    });
    trial.run();
}

#[test]
fn a_log_file_that_is_missing_is_noticed() {
    let trial = Trial::new(Case::sql("a lost log", transactions(2)), pushed);
    assert!(trial.notices(|folder| {
        let is_log = |path: &std::path::PathBuf| path.to_str().is_some_and(|path| path.contains("/log/"));
        let newest = files_below(&folder.join("machine")).into_iter().rfind(is_log).unwrap();
        std::fs::remove_file(newest).unwrap();
    }));
}
