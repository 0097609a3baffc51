//! The demo's data: a social network, the same in every run, made by plain SQLite.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, Transaction};

const USERS: i64 = 80_000;
const POSTS: i64 = 720_000;
const FOLLOWS: i64 = 900_000;
const LIKES: i64 = 1_500_000;

const SCHEMA: &str = "
CREATE TABLE user(
  id INTEGER PRIMARY KEY, handle TEXT NOT NULL UNIQUE, name TEXT NOT NULL, city TEXT NOT NULL, joined INTEGER NOT NULL);
CREATE TABLE post(
  id INTEGER PRIMARY KEY, author INTEGER NOT NULL REFERENCES user, created INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE follow(
  follower INTEGER NOT NULL REFERENCES user, followed INTEGER NOT NULL REFERENCES user,
  PRIMARY KEY(follower, followed)) WITHOUT ROWID;
CREATE TABLE likes(
  post INTEGER NOT NULL REFERENCES post, user INTEGER NOT NULL REFERENCES user, PRIMARY KEY(post, user)) WITHOUT ROWID;
";

// Made after the rows, as a bulk load does; `post_by_author` also answers "newest first".
const INDEXES: &str = "
CREATE INDEX post_by_author ON post(author, created);
CREATE INDEX follow_by_followed ON follow(followed);
CREATE INDEX likes_by_user ON likes(user);
ANALYZE;
";

const CITIES: [&str; 12] = [
    "Accra", "Bergen", "Curitiba", "Dakar", "Essen", "Fukuoka", "Graz", "Hanoi", "Izmir", "Jaipur", "Kingston", "Lima",
];

const SYLLABLES: [&str; 16] =
    ["ba", "chi", "do", "el", "fa", "gri", "ho", "in", "jo", "ka", "lu", "mo", "na", "or", "pe", "sa"];

/// Writes the database to a new file. Some users are far more popular than
/// others, and what belongs to one user is scattered over the tables.
pub(crate) fn generate(path: &Path) -> Result<()> {
    let mut db = Connection::open(path)?;
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;")?;
    db.execute_batch(SCHEMA)?;
    let mut random = Random(0x5157_4952_4531);
    let rows = db.transaction()?;
    users(&rows, &mut random)?;
    posts(&rows, &mut random)?;
    pairs(&rows, "INSERT OR IGNORE INTO follow VALUES(?, ?)", FOLLOWS, USERS, &mut random)?;
    pairs(&rows, "INSERT OR IGNORE INTO likes VALUES(?, ?)", LIKES, POSTS, &mut random)?;
    rows.commit()?;
    db.execute_batch(INDEXES)?;
    db.close().map_err(|(_, error)| error.into())
}

fn users(db: &Transaction<'_>, random: &mut Random) -> Result<()> {
    let mut insert = db.prepare("INSERT INTO user VALUES(?, ?, ?, ?, ?)")?;
    for id in 1..=USERS {
        let name = format!("{} {}", random.word(2), random.word(3));
        let city = CITIES[random.below(CITIES.len() as i64) as usize];
        insert.execute((id, format!("{}{id}", random.word(2)), name, city, 1_500_000_000 + id * 1_000))?;
    }
    Ok(())
}

fn posts(db: &Transaction<'_>, random: &mut Random) -> Result<()> {
    let mut insert = db.prepare("INSERT INTO post VALUES(?, ?, ?, ?)")?;
    for id in 1..=POSTS {
        let mut body = random.word(3);
        for _ in 0..random.below(24) {
            body.push(' ');
            body.push_str(&random.word(2));
        }
        insert.execute((id, popular(random, USERS), 1_600_000_000 + id * 100, body))?;
    }
    Ok(())
}

/// `count` pairs: the left sides rise from 1 to `left`, the right sides are users.
fn pairs(db: &Transaction<'_>, sql: &str, count: i64, left: i64, random: &mut Random) -> Result<()> {
    let mut insert = db.prepare(sql)?;
    for i in 0..count {
        insert.execute((i * left / count + 1, popular(random, USERS)))?;
    }
    Ok(())
}

/// A number in 1..=`count`; low ones come up more often.
fn popular(random: &mut Random, count: i64) -> i64 {
    let (one, other) = (random.below(count), random.below(count));
    one.min(other) + 1
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: i64) -> i64 {
        (self.next() >> 1) as i64 % limit
    }

    fn word(&mut self, syllables: usize) -> String {
        (0..syllables).map(|_| SYLLABLES[self.below(SYLLABLES.len() as i64) as usize]).collect()
    }
}
