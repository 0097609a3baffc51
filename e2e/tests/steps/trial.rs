//! One run of a command, and what a kill at each step of it leaves.

use std::collections::BTreeMap;
use std::path::Path;

use quire_e2e::World;
use quire_powerloss::{Disk, Event, Image, Kept, read_events};
use quire_testkit::seed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value};

use crate::case::{Act, Case, Repeated, SMALL_CACHE};
use crate::model::model;
use crate::view::{View, kinds};

/// So many moments of a command are looked at unless it is said otherwise.
const ROUNDS: usize = 6;
/// So often a command is run until all that it does is recorded.
const ATTEMPTS: usize = 5;

/// A command that was run and recorded.
pub(crate) struct Trial {
    case: Case,
    world: World,
    begin: Image,
    events: Vec<Event>,
    /// What is to be seen after each part of the command: first that before it, last that after it.
    states: Vec<View>,
    end: End,
}

/// Where an undisturbed run ends.
struct End {
    view: View,
    status: Vec<Map<String, Value>>,
    files: BTreeMap<String, usize>,
}

/// What was seen, over all moments.
#[derive(Default)]
struct Seen {
    tried: usize,
    before: usize,
    after: usize,
    repetitions_refused: usize,
    /// In the store and in the data directory, more than an undisturbed run leaves.
    left_over: BTreeMap<String, usize>,
}

impl Trial {
    /// Runs a command in the world that `prepare` makes.
    pub(crate) fn new(case: Case, prepare: impl FnOnce(&World)) -> Trial {
        let world = World::with_variables(vec![("QUIRE_CACHE_SIZE".to_owned(), case.cache_size.to_owned())]);
        prepare(&world);
        let begin = Image::read(world.folder()).unwrap();
        let before = View::of(&case, &world);
        let expected = match &case.act {
            Act::Sql { lines, .. } => model(&world, case.volumes, lines),
            Act::Quire { .. } => Vec::new(),
        };
        let (events, there) = record(&case, &world, &begin);
        let after = View::of(&case, &world);
        let states = match &case.act {
            Act::Quire { .. } => vec![before, after],
            Act::Sql { parameters, .. } => {
                let is_stored = parameters.contains("sync=commit");
                let view = |here| View {
                    in_store: if is_stored { Clone::clone(&here) } else { before.in_store.clone() },
                    here,
                };
                let states: Vec<View> = expected.into_iter().map(view).collect();
                assert_eq!((&states[0], &states[states.len() - 1]), (&before, &after), "not what plain SQLite does");
                states
            }
        };
        there.write(world.folder()).unwrap();
        case.wind_up(&world);
        let end = End::of(&case, &world);
        for row in &end.status {
            let is_kept_work = row["name"].as_str().is_some_and(|name| name.contains(".dropped-"));
            assert!(is_kept_work || row["state"] == "clean", "{row:?}");
        }
        Trial { case, world, begin, events, states, end }
    }

    /// Looks at what kills leave.
    pub(crate) fn run(&self) {
        let mut seen = Seen::default();
        let mut disk = Disk::new(&self.begin);
        let mut done = 0;
        for moment in self.moments() {
            self.events[done..moment].iter().for_each(|event| disk.replay(event).unwrap());
            done = moment;
            self.look(&disk.current(), moment, &mut seen);
        }
        let Seen { tried, before, after, repetitions_refused, left_over } = seen;
        println!(
            "{}: {} events; {tried} kills, {before} left what was before, {after} what is after; {repetitions_refused} \
             repetitions had nothing left to do; left over at most: {left_over:?}",
            self.case.name,
            self.events.len()
        );
    }

    /// Whether it is noticed that somebody has changed what an acknowledged command had left.
    pub(crate) fn notices(&self, change: impl FnOnce(&Path)) -> bool {
        let mut disk = Disk::new(&self.begin);
        self.events.iter().for_each(|event| disk.replay(event).unwrap());
        disk.current().write(self.world.folder()).unwrap();
        change(self.world.folder());
        let changed = Image::read(self.world.folder()).unwrap();
        assert!(disk.current().difference(&changed).is_some(), "nothing was changed");
        let look = || self.look(&changed, self.events.len(), &mut Seen::default());
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(look)).is_err()
    }

    /// Numbers of events after which to look: an even sample of all that leave something else than the one before.
    fn moments(&self) -> Vec<usize> {
        let rounds: usize = std::env::var("QUIRE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
        let changes = |moment: &usize| *moment == 0 || is_a_change(&self.events[moment - 1]);
        let all: Vec<usize> = (0..=self.events.len()).filter(changes).collect();
        let most = rounds.min(all.len()).div_ceil(self.case.one_in);
        let first = StdRng::seed_from_u64(seed()).random_range(0..all.len());
        (0..most).map(|n| all[(first + n * all.len()) / most]).collect()
    }

    /// Looks at what a kill after so many events leaves, and does it once more.
    fn look(&self, image: &Image, moment: usize, seen: &mut Seen) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("steps-{}", self.case.name.replace(' ', "-")));
        let _kept = Kept { folder, image, events: moment };
        image.write(self.world.folder()).unwrap();
        let view = View::of(&self.case, &self.world);
        let answered = self.answered(moment);
        let promised = &self.states[answered..self.states.len().min(answered + 2)];
        assert!(
            promised.iter().any(|state| state.here == view.here),
            "neither before nor after: {view:?}; {promised:?}"
        );
        assert!(
            promised.iter().any(|state| state.in_store == view.in_store),
            "neither before nor after in the store: {view:?}; {promised:?}"
        );

        image.write(self.world.folder()).unwrap();
        let repeated = self.case.repeat(&self.world);
        let is_after = promised.last() == Some(&view);
        assert!(repeated == Repeated::Did || is_after, "it says that it was done, and there is {view:?}");
        self.case.wind_up(&self.world);
        let end = End::of(&self.case, &self.world);
        assert_eq!(end.view, self.end.view, "it does not end as an undisturbed run");
        assert_eq!(end.status, self.end.status);
        seen.tried += 1;
        seen.before += usize::from(promised[0] == view && !is_after);
        seen.after += usize::from(is_after);
        seen.repetitions_refused += usize::from(repeated == Repeated::WasDone);
        for (kind, count) in end.files {
            let undisturbed = self.end.files.get(&kind).copied().unwrap_or(0);
            assert!(count <= undisturbed + self.spare_files(&kind), "{count} {kind}, undisturbed {undisturbed}");
            if count > undisturbed {
                let most = seen.left_over.entry(kind).or_insert(0);
                *most = (*most).max(count - undisturbed);
            }
        }
    }

    /// So many files more than an undisturbed run may there be after a kill.
    fn spare_files(&self, kind: &str) -> usize {
        let sessions = match self.case.volumes {
            [_] => 1,
            // What a transaction over several volumes has left is settled in a session of its own.
            several => 2 * several.len(),
        };
        match kind {
            // What was cut short there is collected with the history.
            kind if kind.starts_with("store/") => usize::MAX / 2,
            // Each session begins new files; a cache is trimmed as soon as it grows, and may be too large until then.
            kind if kind.ends_with(".qlog") && self.case.cache_size == SMALL_CACHE => 80,
            kind if kind.ends_with(".qlog") => sessions,
            _ => 0,
        }
    }

    /// How many parts of the command were answered after so many events.
    fn answered(&self, moment: usize) -> usize {
        let said = self.events[..moment].iter().filter_map(|event| match event {
            Event::Said { bytes } => Some(bytes),
            _ => None,
        });
        match self.case.act {
            Act::Quire { .. } => usize::from(said.count() > 0),
            Act::Sql { .. } => {
                // A row begins with '=', an answer ends with another line; the first answer is that it was opened.
                let lines = said.flat_map(|bytes| bytes.split_inclusive(|byte| *byte == b'\n'));
                lines.filter(|line| line[0] != b'=').count().saturating_sub(1)
            }
        }
    }
}

impl End {
    fn of(case: &Case, world: &World) -> End {
        let status = case.status(world);
        let files = kinds(world.folder());
        End { view: View::of(case, world), status, files }
    }
}

/// Runs a command; says what it did, and what there is afterwards.
fn record(case: &Case, world: &World, begin: &Image) -> (Vec<Event>, Image) {
    for _ in 0..ATTEMPTS {
        begin.write(world.folder()).unwrap();
        let events = record_once(case, world);
        let there = Image::read(world.folder()).unwrap();
        let mut disk = Disk::new(begin);
        events.iter().for_each(|event| disk.replay(event).unwrap());
        match disk.current().difference(&there) {
            None => return (events, there),
            // A call of another thread that was under way when the program ended comes back to nobody.
            Some(path) => println!("{} went past the recorder", path.display()),
        }
    }
    panic!("something always goes past the recorder");
}

fn record_once(case: &Case, world: &World) -> Vec<Event> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recording");
    let machine = case.machine(world);
    match &case.act {
        Act::Quire { words, status, .. } => {
            let ended = machine.recorded_run(words, &path);
            assert_eq!(ended.status, Some(*status), "{ended:?}");
        }
        Act::Sql { parameters, lines } => {
            let mut app = machine.recorded_app(case.volumes[0], parameters, &path);
            lines.iter().for_each(|line| drop(app.sql(line)));
            app.finish();
        }
    }
    read_events(&path).unwrap()
}

/// Whether what a kill leaves, or what was promised before it, is something else after this event.
fn is_a_change(event: &Event) -> bool {
    match event {
        Event::Opened { create, truncate, .. } => *create || *truncate,
        Event::Started | Event::Closed { .. } | Event::Duplicated { .. } | Event::Synced { .. } => false,
        _ => true,
    }
}
