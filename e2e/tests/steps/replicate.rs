//! Kills inside the traffic between a replica and the store.

use quire_e2e::{World, files_below, text_of};

use crate::case::{Act, Case, PUSH, SMALL_CACHE};
use crate::commit::numbers;
use crate::model::{import, text};
use crate::trial::Trial;

fn pushed(world: &World) {
    import(world, "first", 300);
    world.machine("machine").ok(&["push"]);
}

/// SQL on a machine.
fn sql(world: &World, machine: &str, lines: &[&str]) {
    let mut app = world.machine(machine).app("first");
    lines.iter().for_each(|line| drop(app.sql(line)));
    app.finish();
}

/// Somebody else has pushed: one row, or all of them.
fn changed_elsewhere(world: &World, rows: &str) {
    let change = format!("UPDATE t SET body = {} WHERE {rows}", text(1, 700));
    sql(world, "other", &[&change, "SELECT quire_push()"]);
    std::fs::remove_dir_all(world.path("other")).unwrap();
}

const SMALL: &str = "UPDATE t SET body = 'small' WHERE n = 7";

#[test]
fn a_first_push() {
    Trial::new(Case::quire("first push", &["push"]), |world| import(world, "first", 300)).run();
}

#[test]
fn a_small_push() {
    Trial::new(Case::quire("small push", &["push"]), |world| {
        pushed(world);
        sql(world, "machine", &[SMALL]);
    })
    .run();
}

#[test]
fn a_push_with_several_segments() {
    let case = Case { volumes: &["file"], one_in: 4, ..Case::quire("several segments", &["push"]) };
    Trial::new(case, |world| {
        let file = world.file("content", numbers(66 << 20));
        world.machine("machine").ok(&["import", text_of(&file), "file"]);
        std::fs::remove_file(file).unwrap();
    })
    .run();
}

#[test]
fn a_push_that_diverges() {
    let act = Act::Quire { words: &["push", "first"], status: 3, done: None };
    let case = Case {
        act,
        volumes: &["first", "first.dropped-1"],
        then: &[&["reset", "first"]],
        ..Case::quire("diverging push", &[])
    };
    Trial::new(case, |world| {
        pushed(world);
        sql(world, "machine", &[SMALL]);
        changed_elsewhere(world, "n = 8");
    })
    .run();
}

#[test]
fn a_push_that_writes_a_roll_up() {
    Trial::new(Case::quire("roll-up", &["push"]), |world| {
        import(world, "first", 20);
        let lines: Vec<String> =
            (1..64).map(|n| format!("SELECT quire_push(); UPDATE t SET body = '{n}' WHERE n = 7")).collect();
        sql(world, "machine", &lines.iter().map(String::as_str).collect::<Vec<_>>());
    })
    .run();
}

#[test]
fn a_pull_of_one_page() {
    Trial::new(Case::quire("pull", &["pull"]), |world| {
        pushed(world);
        changed_elsewhere(world, "n = 8");
    })
    .run();
}

#[test]
fn a_pull_of_many_pages() {
    Trial::new(Case::quire("large pull", &["pull"]), |world| {
        pushed(world);
        changed_elsewhere(world, "true");
    })
    .run();
}

#[test]
fn a_sync_over_commits_of_both_sides_diverges() {
    let act = Act::Quire { words: &["sync", "first"], status: 3, done: None };
    let case = Case {
        act,
        volumes: &["first", "first.dropped-1"],
        then: &[&["reset", "first"]],
        ..Case::quire("diverging sync", &[])
    };
    Trial::new(case, |world| {
        pushed(world);
        sql(world, "machine", &[SMALL]);
        changed_elsewhere(world, "true");
    })
    .run();
}

#[test]
fn a_reset_with_unpushed_work() {
    let volumes = &["first", "first.dropped-1", "first.dropped-2"];
    Trial::new(Case { volumes, ..Case::quire("reset", &["reset", "first"]) }, |world| {
        pushed(world);
        sql(world, "machine", &[SMALL]);
        changed_elsewhere(world, "n = 8");
    })
    .run();
}

#[test]
fn a_reset_of_a_diverged_volume() {
    let volumes = &["first", "first.dropped-1", "first.dropped-2"];
    Trial::new(Case { volumes, ..Case::quire("reset after divergence", &["reset", "first"]) }, |world| {
        pushed(world);
        sql(world, "machine", &[SMALL]);
        changed_elsewhere(world, "n = 8");
        assert_eq!(world.machine("machine").run(&["push", "first"]).status, Some(3));
    })
    .run();
}

#[test]
fn a_reset_without_unpushed_work() {
    let volumes = &["first", "first.dropped-1"];
    Trial::new(Case { volumes, ..Case::quire("reset without work", &["reset", "first"]) }, |world| {
        pushed(world);
        changed_elsewhere(world, "n = 8");
    })
    .run();
}

/// A machine that knows the volume, and has none of its pages.
fn cloned(world: &World) {
    pushed(world);
    std::fs::remove_dir_all(world.path("machine")).unwrap();
    world.machine("machine").ok(&["clone", "first"]);
}

#[test]
fn a_hydration() {
    Trial::new(Case::quire("hydrate", &["hydrate", "first"]), cloned).run();
}

#[test]
fn a_hydration_into_a_small_cache_which_evicts() {
    let hydrate = Act::Quire { words: &["hydrate", "first"], status: 1, done: None };
    let case = Case { cache_size: SMALL_CACHE, act: hydrate, ..Case::quire("hydrate and evict", &[]) };
    Trial::new(case, |world| {
        import(world, "first", 3000);
        world.machine("machine").ok(&["push"]);
    })
    .run();
}

#[test]
fn a_push_after_which_the_cache_is_trimmed() {
    let case = Case { cache_size: SMALL_CACHE, ..Case::quire("push and trim", &["push"]) };
    Trial::new(case, |world| import(world, "first", 3000)).run();
}

#[test]
fn reading_fetches_pages_and_transactions_follow() {
    let lines = vec![
        "SELECT sum(length(body)) FROM t".to_owned(),
        format!("UPDATE t SET body = {} WHERE n < 50", text(1, 600)),
    ];
    Trial::new(Case { then: PUSH, ..Case::sql("fetching", lines) }, cloned).run();
}

#[test]
fn an_object_that_is_missing_in_the_store_is_noticed() {
    let trial = Trial::new(Case::quire("a lost object", &["push"]), |world| import(world, "first", 3000));
    assert!(trial.notices(|folder| {
        let is_segment = |path: &std::path::PathBuf| path.to_str().is_some_and(|path| path.contains("/seg/"));
        let segment = files_below(&folder.join("store")).into_iter().find(is_segment).unwrap();
        std::fs::remove_file(segment).unwrap();
    }));
}
