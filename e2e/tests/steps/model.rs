//! What plain SQLite makes of the same lines, and the databases with which the worlds begin.

use quire_e2e::{App, World, content_in, text_of};

use crate::view::Holding;

/// Text that belongs to the numbers in column `n` and in `version`.
pub(crate) fn text(version: u32, bytes: u32) -> String {
    format!(
        "substr(replace(hex(zeroblob({bytes} / 6 + 1)), '00', printf('%06d', n * 7919 % 999983 + {version})), 1, {bytes})"
    )
}

/// Makes an ordinary database of so many rows, `NAME.db` in the world's folder, and imports it.
pub(crate) fn import(world: &World, volume: &str, rows: u32) {
    let file = world.path(&format!("{volume}.db"));
    let mut app = world.machine("machine").plain_app(&file);
    app.sql(&format!(
        "CREATE TABLE t (n INTEGER PRIMARY KEY, body TEXT); CREATE INDEX by_body ON t (body); \
         WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < {rows}) \
         INSERT INTO t SELECT n, {} FROM i",
        text(0, 600)
    ));
    app.finish();
    world.machine("machine").ok(&["import", text_of(&file), volume]);
}

/// What the volumes hold before and after each line, if plain SQLite runs it on copies of the files they were made of.
pub(crate) fn model(world: &World, volumes: &[&'static str], lines: &[String]) -> Vec<Holding> {
    let folder = tempfile::tempdir().unwrap();
    let path = |volume: &str| folder.path().join(format!("{volume}.db"));
    for volume in volumes {
        let file = world.path(&format!("{volume}.db"));
        if file.exists() {
            std::fs::copy(file, path(volume)).unwrap();
        }
    }
    let mut app = world.machine("machine").plain_app(&path(volumes[0]));
    for volume in &volumes[1..] {
        app.sql(&format!("ATTACH '{}' AS {volume}", text_of(&path(volume))));
    }
    let mut states = vec![holding(&mut app, volumes)];
    for line in lines {
        if !line.starts_with("ATTACH") {
            app.sql(line);
        }
        states.push(holding(&mut app, volumes));
    }
    app.finish();
    states
}

fn holding(app: &mut App, volumes: &[&'static str]) -> Holding {
    let schemas = std::iter::once("main").chain(volumes[1..].iter().copied());
    let contents = volumes.iter().zip(schemas).map(|(volume, schema)| (*volume, content_in(app, schema)));
    contents.filter(|(_, content)| content["schema"].0 > 0).collect()
}
