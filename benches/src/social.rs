//! A social database: 100,000 users, 1,000,000 posts, 3,000,000 likes, with
//! indexes; and the questions that a page of such a site asks, each by a
//! replica that has just opened and holds nothing.

use std::fmt::Write;

use anyhow::{Result, ensure};
use rusqlite::Connection;

use crate::phase::{Bench, database_bytes, metrics, timed};
use crate::travel::{count, traffic};
use crate::{Metrics, data};

const USERS: i64 = 100_000;
const POSTS: i64 = 1_000_000;
const LIKES: i64 = 3_000_000;
/// Who writes one post in a thousand.
const POPULAR: i64 = 4242;

const SCHEMA: &str = "
    CREATE TABLE user(id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, city TEXT NOT NULL, bio TEXT);
    CREATE TABLE post(id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, created INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE TABLE likes(user_id INTEGER NOT NULL, post_id INTEGER NOT NULL);";

const INDEXES: &str = "
    CREATE UNIQUE INDEX user_email ON user(email);
    CREATE INDEX user_city ON user(city);
    CREATE INDEX post_user ON post(user_id, created);
    CREATE INDEX likes_post ON likes(post_id, user_id);
    CREATE INDEX likes_user ON likes(user_id);";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Nothing: the schema is read.
    Open,
    Row,
    Join,
    LastPosts,
    Scattered,
    FourTables,
    TwoIndexes,
    Filter,
}

impl Question {
    pub(crate) const ALL: [Question; 8] = [
        Question::Open,
        Question::Row,
        Question::Join,
        Question::LastPosts,
        Question::Scattered,
        Question::FourTables,
        Question::TwoIndexes,
        Question::Filter,
    ];

    /// The name of its phase; and of that on a slow link.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Question::Open => ("social-open", "slow-open"),
            Question::Row => ("social-row", "slow-row"),
            Question::Join => ("social-join", "slow-join"),
            Question::LastPosts => ("social-last-posts", "slow-last-posts"),
            Question::Scattered => ("social-scattered", "slow-scattered"),
            Question::FourTables => ("social-four-tables", "slow-four-tables"),
            Question::TwoIndexes => ("social-two-indexes", "slow-two-indexes"),
            Question::Filter => ("social-filter", "slow-filter"),
        }
    }

    fn sql(self) -> String {
        match self {
            Question::Open => "SELECT count(*) FROM sqlite_schema".to_owned(),
            Question::Row => "SELECT * FROM user WHERE id = 54321".to_owned(),
            Question::Join => {
                "SELECT post.*, name FROM post JOIN user ON user.id = user_id WHERE post.id = 765432".to_owned()
            }
            Question::LastPosts => format!(
                "SELECT post.id, body, name FROM post JOIN user ON user.id = user_id WHERE user_id = {POPULAR}
                 ORDER BY created DESC LIMIT 20"
            ),
            Question::Scattered => {
                let mut emails = String::new();
                for n in 0..50 {
                    let comma = if n == 0 { "" } else { ", " };
                    let _ = write!(emails, "{comma}'{}'", email(data::scattered(n, USERS)));
                }
                format!("SELECT id, name, bio FROM user WHERE email IN ({emails})")
            }
            Question::FourTables => "SELECT p.body, u.name, v.name FROM user u JOIN post p ON p.user_id = u.id
                 JOIN likes l ON l.post_id = p.id JOIN user v ON v.id = l.user_id WHERE u.id = 777"
                .to_owned(),
            Question::TwoIndexes => "SELECT count(*), max(created) FROM user u JOIN post p ON p.user_id = u.id
                 WHERE city = 'city 123'"
                .to_owned(),
            Question::Filter => "SELECT count(*) FROM post WHERE body LIKE '%estuary glacier fern%'".to_owned(),
        }
    }
}

fn email(user: i64) -> String {
    format!("{:08x}@example.org", (user * 2_654_435_761) as u32)
}

impl Bench {
    /// Makes the database and pushes it.
    pub(crate) fn social_import(&self) -> Result<Metrics> {
        let mut db = self.connect()?;
        let transaction = db.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        {
            let mut user = transaction.prepare("INSERT INTO user VALUES(?, ?, ?, ?, ?)")?;
            for id in 1..=USERS {
                let city = format!("city {}", data::scattered(id, 1000));
                user.execute((id, format!("name {}", data::scattered(-id, USERS)), email(id), city, data::text(id)))?;
            }
            let mut post = transaction.prepare("INSERT INTO post VALUES(?, ?, ?, ?)")?;
            for id in 1..=POSTS {
                let user = if id % 1000 == 7 { POPULAR } else { data::scattered(id, USERS) };
                post.execute((id, user, 1_700_000_000 + id * 60, data::text(id)))?;
            }
            let mut likes = transaction.prepare("INSERT INTO likes VALUES(?, ?)")?;
            for id in 1..=LIKES {
                likes.execute((data::scattered(-id, USERS), data::scattered(id, POSTS)))?;
            }
        }
        transaction.execute_batch(INDEXES)?;
        transaction.commit()?;
        let size = database_bytes(&db)? / 1_048_576.0;
        self.push_now(&db)?;
        Ok(metrics([("social MiB", size)]))
    }

    /// Asks one question on a replica that has just opened. `on` says on which link.
    pub(crate) fn social(&self, question: Question, on: &str) -> Result<Metrics> {
        let start = std::time::Instant::now();
        let db = self.connect()?;
        ask(&db, Question::Open)?;
        let opening = start.elapsed().as_secs_f64();
        let (before, seconds) = match question {
            Question::Open => (Some(Default::default()), opening),
            _ => (traffic(&db)?, timed(|| ask(&db, question))?),
        };
        let what = format!("{on} {question:?}");
        let mut all = metrics([(&format!("{what} ms"), seconds * 1000.0)]);
        count(&mut all, &db, before, &what, 1)?;
        Ok(all)
    }
}

/// Reads every value of the answer, which must have rows.
fn ask(db: &Connection, question: Question) -> Result<()> {
    let mut statement = db.prepare(&question.sql())?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut found = 0;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            row.get_ref(column)?;
        }
        found += 1;
    }
    ensure!(found > 0, "{question:?} has no answer");
    Ok(())
}
