//! Which engine a connection works on: one that the program gave, or the one
//! that the settings name, opened at the first need and shared by all
//! connections of the process on that data directory.

use std::collections::HashMap;
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quire_engine::{Engine, Error, Result, WeakEngine};
use quire_settings::{Key, Overrides, Settings, Source};

use crate::process;

/// Where connections find their engine.
pub(crate) enum Home {
    /// The program has opened it, in the process of this number.
    Given(Arc<Engine>, u32),
    /// The settings name it.
    Settings,
}

/// The engines that settings named. One is closed with the last volume open
/// on it, so that other processes may have the data directory afterwards.
static OPENED: Mutex<Option<HashMap<PathBuf, Opened>>> = Mutex::new(None);

struct Opened {
    engine: Weak<Engine>,
    /// The same, which may still have background work to do after the last volume was closed.
    lingering: WeakEngine,
    settings: Settings,
    /// A fork's child must not use its parent's engine: the threads are not there.
    pid: u32,
}

impl Home {
    pub(crate) fn given(engine: Engine) -> Home {
        Home::Given(Arc::new(engine), process::id())
    }

    /// The engine for a connection; `sync` is its URI parameter.
    pub(crate) fn engine(&self, sync: Option<&str>) -> Result<Arc<Engine>> {
        match self {
            Home::Given(engine, pid) => {
                process::check(*pid, || "a data directory".to_owned())?;
                Ok(engine.clone())
            }
            Home::Settings => of_settings(sync),
        }
    }

    /// The engine, if a connection has opened it.
    pub(crate) fn opened(&self) -> Option<Arc<Engine>> {
        match self {
            Home::Given(engine, pid) => Some(engine.clone()).filter(|_| *pid == process::id()),
            Home::Settings => {
                let opened = OPENED.lock();
                opened.iter().flat_map(HashMap::values).filter(|o| o.pid == std::process::id()).find_map(Opened::engine)
            }
        }
    }
}

impl Opened {
    fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.upgrade()
    }
}

fn of_settings(sync: Option<&str>) -> Result<Arc<Engine>> {
    let settings = quire_settings::load(&Overrides::default().with(Key::Sync, sync, Source::Uri("sync")))?;
    let mut opened = OPENED.lock();
    let opened = opened.get_or_insert_default();
    let mut lingering = None;
    if let Some(before) = opened.get(&settings.data_dir) {
        if before.pid != std::process::id() {
            if let Some(before) = opened.remove(&settings.data_dir) {
                mem::forget(before);
            }
        } else if let Some(engine) = before.engine() {
            same_settings(&before.settings, &settings)?;
            return Ok(engine);
        } else if same_settings(&before.settings, &settings).is_ok() {
            // It has the data directory's lock until its last push, say, is over: there is no waiting for that.
            lingering = before.lingering.upgrade();
        }
    }
    let engine = match lingering {
        Some(engine) => engine,
        None => quire_settings::open_engine(&settings)?,
    };
    let engine = Arc::new(engine);
    let entry = Opened {
        lingering: engine.downgrade(),
        engine: Arc::downgrade(&engine),
        settings: settings.clone(),
        pid: std::process::id(),
    };
    opened.insert(settings.data_dir, entry);
    Ok(engine)
}

/// One process works on a data directory in one way.
fn same_settings(before: &Settings, now: &Settings) -> Result<()> {
    for (before, now) in before.explain().into_iter().zip(now.explain()) {
        if matches!(now.key, Key::Store | Key::Sync) && before.value != now.value {
            let name = now.key.name();
            return Err(Error::invalid(format!(
                "setting {name} ({}) is {}, but this process has the data directory open with {name}={}",
                now.source, now.value, before.value
            ))
            .with_remedy(format!("Close the other volumes first, or open this one with {name}={}.", before.value)));
        }
    }
    Ok(())
}
