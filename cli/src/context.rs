//! What every verb works with.

use std::cell::OnceCell;

use quire_engine::{Engine, Error, Lsn, Moment, Result, Volume, VolumeName};
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

    /// A volume that is here or in the store, as it is now or at a moment of its past; with its name, and its LSN if
    /// it is of the past.
    pub(crate) fn opened(&self, text: &str) -> Result<(Volume, (VolumeName, Option<Lsn>))> {
        let engine = self.engine()?;
        let (name, moment) = named(text)?.parts();
        let Some(moment) = moment else { return Ok((engine.existing(&name)?, (name, None))) };
        let volume = engine.volume_at(&name, moment)?;
        let lsn = volume.snapshot().base_lsn();
        Ok((volume, (name, lsn)))
    }

    /// A volume that has a replica here.
    pub(crate) fn replica(&self, name: &VolumeName) -> Result<Volume> {
        self.check_is_here(name)?;
        self.engine()?.volume(name)
    }

    /// Refuses a volume that has no replica here. It is not opened: it may be damaged.
    pub(crate) fn check_is_here(&self, name: &VolumeName) -> Result<()> {
        let engine = self.engine()?;
        if !engine.local_volumes()?.contains(name) {
            return Err(Error::not_found(format!("volume {name} has no replica in {}", engine.data_dir().display()))
                .with_remedy(format!("If the store has it: quire clone {name}")));
        }
        Ok(())
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
    /// The volume at a moment, in milliseconds since 1970 UTC.
    AtTime(VolumeName, u64),
}

impl Named {
    /// The name, and which snapshot if not the newest.
    pub(crate) fn parts(self) -> (VolumeName, Option<Moment>) {
        match self {
            Named::Now(name) => (name, None),
            Named::At(name, lsn) => (name, Some(Moment::Lsn(lsn))),
            Named::AtTime(name, time_ms) => (name, Some(Moment::Time(time_ms))),
        }
    }
}

/// Reads NAME, NAME@LSN or NAME@TIME. Any other '@' is a part of the name, unless a moment was meant.
pub(crate) fn named(text: &str) -> Result<Named> {
    if let Some((name, moment)) = text.rsplit_once('@') {
        if let Ok(lsn) = moment.parse() {
            return Ok(Named::At(VolumeName::parse(name)?, Lsn::try_new(lsn)?));
        }
        if let Some(time_ms) = quire_settings::parse_time(moment) {
            return Ok(Named::AtTime(VolumeName::parse(name)?, time_ms));
        }
        if looks_like_a_moment(moment) {
            return Err(Error::invalid(format!("{text}: {moment:?} is neither an LSN nor a time")).with_remedy(
                format!("An LSN is a whole number from 1: {name}@7; a time has a zone: {name}@2026-01-31T12:00:00Z."),
            ));
        }
    }
    Ok(Named::Now(VolumeName::parse(text)?))
}

/// Whether somebody who wrote this behind an '@' meant a moment.
fn looks_like_a_moment(text: &str) -> bool {
    let is_of_one = |char: char| char.is_ascii_digit() || "-:TZ.+".contains(char);
    text.chars().all(is_of_one) && text.contains(|char: char| char.is_ascii_digit())
}

/// Reads a NAME where a snapshot of the past makes no sense.
pub(crate) fn plain_name(text: &str) -> Result<VolumeName> {
    match named(text)? {
        Named::Now(name) => Ok(name),
        Named::At(name, _) | Named::AtTime(name, _) => {
            Err(Error::invalid(format!("{text}: this cannot be done to a snapshot of the past"))
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
        assert_eq!(named("app@2026-01-31T12:00:00Z").unwrap(), Named::AtTime(name("app"), 1_769_860_800_000));
        assert_eq!(named("me@home").unwrap(), Named::Now(name("me@home")));
        assert!(named("app@0").is_err());
        for text in ["app@2026-11-28", "app@-1", "app@2026-11-28T12:00", "app@99999999999999999999", "app@1.5"] {
            let refused = named(text).unwrap_err();
            assert!(refused.remedy().is_some_and(|remedy| remedy.contains("app@2026-01-31T12:00:00Z")), "{refused:?}");
        }
        for text in ["app@v1.2", "app@", "app@T", "app@2026-11-28/db"] {
            assert_eq!(named(text).unwrap(), Named::Now(name(text)));
        }
        assert!(plain_name("app@7").unwrap_err().remedy().is_some_and(|remedy| remedy.ends_with(": app")));
    }
}
