//! A program commits numbered transactions through the extension and is killed
//! at random moments. What it said it had committed is there, nothing else is,
//! and replication goes on.
//!
//! `QUIRE_KILLS` sets the number of kills of each test, `QUIRE_SEED` replays.

#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::collections::VecDeque;
use std::time::Duration;

use quire_e2e::{App, Machine, World};
use quire_testkit::seed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How many lines the program has at hand beyond the one that it runs, so that it never waits.
const AHEAD: usize = 60;
/// At most so many lines are answered between two kills.
const LINES: u32 = 40;
/// At most so long after the last of them the kill comes.
const LATE: Duration = Duration::from_millis(2);

/// What is killed.
struct Plan {
    /// Parameters of the volume's URI.
    parameters: &'static str,
    /// What each connection begins with.
    pragmas: &'static str,
    /// Each transaction also writes to a second volume.
    is_double: bool,
    kills: u64,
}

/// What a line of the program does.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The transaction of this number; a large one rewrites a whole table, too.
    Commit {
        n: u64,
        large: bool,
    },
    /// A transaction of a number that must never be seen.
    RollBack,
    Push,
    Vacuum,
}

impl Step {
    fn sql(self, plan: &Plan) -> String {
        let each = |sql: &dyn Fn(&str) -> String| plan.schemas().map(sql).collect::<String>();
        match self {
            Step::Commit { n, large } => {
                let writes = each(&|schema| {
                    let padding = format!("UPDATE {schema}.padding SET n = {n}, body = randomblob(4000);");
                    format!(
                        "INSERT INTO {schema}.numbers VALUES ({n}, randomblob({n} * 7919 % 3000)); \
                         UPDATE {schema}.total SET many = many + 1, sum = sum + {n}; {}",
                        if large { padding.as_str() } else { "" }
                    )
                });
                format!("BEGIN IMMEDIATE; {writes} COMMIT")
            }
            Step::RollBack => {
                let writes = each(&|schema| format!("INSERT INTO {schema}.numbers VALUES (-1, zeroblob(9000));"));
                format!("BEGIN; {writes} UPDATE padding SET n = -1; ROLLBACK")
            }
            Step::Push => each(&|schema| format!("SELECT quire_push('{schema}');")),
            Step::Vacuum => "VACUUM".to_owned(),
        }
    }
}

impl Plan {
    fn schemas(&self) -> impl Iterator<Item = &'static str> {
        ["main", "second"].into_iter().take(1 + usize::from(self.is_double))
    }

    /// A program on the volumes of a machine.
    fn app(&self, machine: &Machine<'_>) -> App {
        let mut app = machine.app_with("first", self.parameters);
        app.sql(self.pragmas);
        if self.is_double {
            app.sql(&format!("ATTACH 'file:second?vfs=quire{}' AS second", self.parameters));
        }
        app
    }

    fn create(&self, machine: &Machine<'_>) {
        let mut app = self.app(machine);
        app.sql("CREATE TABLE life (number INTEGER); INSERT INTO life VALUES (0)");
        for schema in self.schemas() {
            app.sql(&format!(
                "BEGIN; CREATE TABLE {schema}.numbers (n INTEGER PRIMARY KEY, body BLOB); \
                 CREATE TABLE {schema}.total (many INTEGER, sum INTEGER); \
                 CREATE TABLE {schema}.padding (n INTEGER, body BLOB); \
                 INSERT INTO {schema}.total VALUES (0, 0); \
                 WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 300) \
                 INSERT INTO {schema}.padding SELECT 0, NULL FROM i; COMMIT"
            ));
        }
        app.finish();
    }

    /// The newest transaction that is there. It and all before it are there as a whole, and nothing else is.
    fn newest(&self, app: &mut App) -> u64 {
        let mut newest: Vec<u64> = Vec::new();
        for schema in self.schemas() {
            assert_eq!(app.one(&format!("PRAGMA {schema}.integrity_check")), "ok");
            let n: u64 = app.one(&format!("SELECT coalesce(max(n), 0) FROM {schema}.numbers")).parse().unwrap();
            let numbers = app.one(&format!("SELECT count(*), coalesce(min(n), 1) FROM {schema}.numbers"));
            assert_eq!(numbers, format!("{n}|1"), "a gap, or a number that was rolled back");
            let total = app.one(&format!("SELECT many, sum FROM {schema}.total"));
            assert_eq!(total, format!("{n}|{}", n * (n + 1) / 2), "half a transaction");
            let padding = app.one(&format!("SELECT count(DISTINCT n), max(n) BETWEEN 0 AND {n} FROM {schema}.padding"));
            assert_eq!(padding, "1|1", "half a large transaction");
            newest.push(n);
        }
        assert!(newest.iter().all(|n| *n == newest[0]), "half a transaction over two volumes: {newest:?}");
        newest[0]
    }

    /// What somebody sees who has never seen these volumes.
    fn newest_in_store(&self, world: &World) -> u64 {
        let fresh = world.machine("fresh");
        let mut app = self.app(&fresh);
        let newest = self.newest(&mut app);
        app.finish();
        std::fs::remove_dir_all(fresh.data_dir()).unwrap();
        newest
    }

    fn run(&self) {
        let mut rng = StdRng::seed_from_u64(seed());
        let world = World::new();
        let machine = world.machine("machine");
        self.create(&machine);
        let (mut known, mut in_flight) = (0, 0);
        let kills = std::env::var("QUIRE_KILLS").map_or(self.kills, |kills| kills.parse().unwrap());
        for kill in 1..=kills {
            let newest = self.between_two_kills(&machine, &mut rng, known);
            let said = newest.said;
            if self.parameters.contains("sync=commit") {
                let stored = self.newest_in_store(&world);
                assert!((said..=newest.begun).contains(&stored), "kill {kill}: said {said}, in the store {stored}");
            }
            let mut app = self.app(&machine);
            known = self.newest(&mut app);
            assert!((said..=newest.begun).contains(&known), "kill {kill}: said {said}, there is {known}");
            in_flight += known - said;
            // The program goes on as if nothing had happened, and so does replication.
            app.sql("UPDATE life SET number = number + 1");
            app.sql(&Step::Push.sql(self));
            assert_eq!(self.newest(&mut app), known, "kill {kill}: a transaction appeared late");
            assert_eq!(self.newest_in_store(&world), known, "kill {kill}: replication does not go on");
            assert_eq!(app.one("SELECT number FROM life"), kill.to_string());
            app.finish();
        }
        println!("{kills} kills, {known} transactions, {in_flight} of them committed but not said");
    }

    fn between_two_kills(&self, machine: &Machine<'_>, rng: &mut StdRng, known: u64) -> Newest {
        let mut app = self.app(machine);
        let mut newest = Newest { said: known, begun: known };
        let mut sent = VecDeque::new();
        let mut next = known;
        for _ in 0..rng.random_range(0..LINES) {
            while sent.len() < AHEAD {
                let step = random_step(rng, &mut next);
                app.send(&step.sql(self));
                sent.push_back(step);
            }
            let step = sent.pop_front().unwrap();
            let answer = app.answer().unwrap_or_else(|| panic!("{step:?}: the program ended"));
            newest.answered(step, answer.map(drop));
        }
        // Not to wait for anything: this is the random moment.
        std::thread::sleep(rng.random_range(Duration::ZERO..LATE));
        for answer in app.kill() {
            newest.answered(sent.pop_front().unwrap(), answer.map(drop));
        }
        if let Some(Step::Commit { n, .. }) = sent.front() {
            newest.begun = *n;
        }
        newest
    }
}

/// The newest transactions of a program that was killed.
struct Newest {
    /// The last whose COMMIT returned.
    said: u64,
    /// The last that may have been under way.
    begun: u64,
}

impl Newest {
    fn answered(&mut self, step: Step, answer: Result<(), quire_e2e::Failure>) {
        answer.unwrap_or_else(|failure| panic!("{step:?}: {failure:?}"));
        if let Step::Commit { n, .. } = step {
            *self = Newest { said: n, begun: n };
        }
    }
}

fn random_step(rng: &mut StdRng, next: &mut u64) -> Step {
    match rng.random_range(0..100) {
        0..10 => Step::Push,
        10..14 => Step::RollBack,
        14..16 => Step::Vacuum,
        choice => {
            *next += 1;
            Step::Commit { n: *next, large: choice < 24 }
        }
    }
}

#[test]
fn kills_with_synchronous_full_lose_nothing() {
    Plan { parameters: "", pragmas: "PRAGMA synchronous = FULL", is_double: false, kills: 25 }.run();
}

#[test]
fn kills_with_synchronous_normal_and_pushes_in_the_background_lose_nothing() {
    let plan = Plan { parameters: "&sync=20ms", pragmas: "PRAGMA synchronous = NORMAL", is_double: false, kills: 25 };
    plan.run();
}

#[test]
fn kills_in_exclusive_mode_lose_nothing() {
    let pragmas = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = 20";
    Plan { parameters: "", pragmas, is_double: false, kills: 10 }.run();
}

#[test]
fn kills_with_sync_commit_lose_nothing_in_the_store_either() {
    Plan { parameters: "&sync=commit", pragmas: "PRAGMA synchronous = FULL", is_double: false, kills: 15 }.run();
}

#[test]
fn kills_never_halve_a_transaction_over_two_volumes() {
    Plan { parameters: "", pragmas: "PRAGMA synchronous = NORMAL", is_double: true, kills: 20 }.run();
}
