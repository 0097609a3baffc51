//! What every verb works with.

use std::cell::OnceCell;

use quire_engine::{Engine, Error, Lsn, Result, Volume, VolumeName};
use quire_settings::{Key, Overrides, Settings, Source};

use crate::args::Global;
use crate::output::Output;

/// The settings, the output, and the engine once somebody needs it.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    engine: OnceCell<Engine>,
}

impl Context {
    /// Loads the settings; nothing is opened yet.
    pub(crate) fn new(global: &Global) -> Result<Context> {
        let flags = [
            (Key::DataDir, &global.data_dir, "--data-dir"),
            (Key::Store, &global.store, "--store"),
            (Key::Sync, &global.sync, "--sync"),
            (Key::CacheSize, &global.cache_size, "--cache-size"),
            (Key::Log, &global.log, "--log"),
        ];
        let overrides = flags.into_iter().fold(Overrides::default(), |overrides, (key, value, flag)| {
            overrides.with(key, value.as_deref(), Source::Flag(flag))
        });
        let settings = quire_settings::load(&overrides)?;
        Ok(Context { settings, output: Output { json: global.json }, engine: OnceCell::new() })
    }

    /// The engine on the data directory, opened at the first call.
    pub(crate) fn engine(&self) -> Result<&Engine> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = quire_settings::open_engine(&self.settings)?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// A volume that has a replica here.
    pub(crate) fn replica(&self, name: &VolumeName) -> Result<Volume> {
        let engine = self.engine()?;
        if !engine.local_volumes()?.contains(name) {
            return Err(Error::not_found(format!("volume {name} has no replica in {}", engine.data_dir().display()))
                .with_remedy(format!("If the store has it: quire clone {name}")));
        }
        engine.volume(name)
    }

    /// The volumes that were named, or all that have a replica here.
    pub(crate) fn named_or_all(&self, names: &[String]) -> Result<Vec<VolumeName>> {
        if names.is_empty() {
            return self.engine()?.local_volumes();
        }
        names.iter().map(|name| plain_name(name)).collect()
    }
}

/// What NAME, NAME@LSN or NAME@TIME names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// The volume as it is now.
    Now(VolumeName),
    /// The volume at an LSN.
    At(VolumeName, Lsn),
    /// The volume at a moment.
    AtTime(VolumeName),
}

/// Reads NAME, NAME@LSN or NAME@TIME. Any other '@' is a part of the name.
pub(crate) fn named(text: &str) -> Result<Named> {
    if let Some((name, moment)) = text.rsplit_once('@') {
        if let Ok(lsn) = moment.parse() {
            return Ok(Named::At(VolumeName::parse(name)?, Lsn::try_new(lsn)?));
        }
        if moment.parse::<jiff::Timestamp>().is_ok() {
            return Ok(Named::AtTime(VolumeName::parse(name)?));
        }
    }
    Ok(Named::Now(VolumeName::parse(text)?))
}

/// Reads a NAME where a snapshot of the past makes no sense or is not offered.
pub(crate) fn plain_name(text: &str) -> Result<VolumeName> {
    match named(text)? {
        Named::Now(name) => Ok(name),
        Named::At(name, _) | Named::AtTime(name) => {
            Err(Error::invalid(format!("{text}: this version of Quire reads a volume only as it is now"))
                .with_remedy(format!("Leave out what follows the '@': {name}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_a_moment_behind_the_last_at_names_a_snapshot() {
        let name = |text| VolumeName::parse(text).unwrap();
        let lsn = Lsn::try_new(7).unwrap();
        assert_eq!(named("team/app").unwrap(), Named::Now(name("team/app")));
        assert_eq!(named("app@7").unwrap(), Named::At(name("app"), lsn));
        assert_eq!(named("me@home@7").unwrap(), Named::At(name("me@home"), lsn));
        assert_eq!(named("app@2026-01-31T12:00:00Z").unwrap(), Named::AtTime(name("app")));
        assert_eq!(named("me@home").unwrap(), Named::Now(name("me@home")));
        assert!(named("app@0").is_err());
        assert!(plain_name("app@7").unwrap_err().remedy().is_some_and(|remedy| remedy.ends_with(": app")));
    }
}
