//! What every verb works with.

use std::cell::OnceCell;

use quire_engine::{Engine, Error, Lsn, Moment, Result, Volume, VolumeName};
use quire_settings::{Key, Overrides, Settings, Source};

use crate::args::Global;
use crate::output::{Output, word};

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

    /// What NAME, NAME@LSN or NAME@TIME names. A volume here that is called all of it is meant rather than a snapshot:
    /// none is made with such a name any more, but there may be old ones.
    pub(crate) fn named(&self, text: &str) -> Result<Named> {
        let Some(whole) = self.here_as(text)? else { return named(text) };
        if let Ok((name, Some(_))) = named(text).map(Named::parts)
            && self.engine()?.local_volumes()?.contains(&name)
        {
            return Err(Error::invalid(format!("{text} is a volume here, and a snapshot of volume {name} too"))
                .with_remedy(format!("Give that volume another name first: quire mv {} NEW", word(text))));
        }
        Ok(Named::Now(whole))
    }

    /// Reads a NAME where a snapshot of the past makes no sense.
    pub(crate) fn plain_name(&self, text: &str) -> Result<VolumeName> {
        self.one_volume(text, |name| format!("Leave out what follows the '@': {}", word(name)))
    }

    /// As [`plain_name`](Self::plain_name); who names a snapshot of a volume is told what `instead` says.
    pub(crate) fn one_volume(&self, text: &str, instead: impl FnOnce(&VolumeName) -> String) -> Result<VolumeName> {
        match (self.here_as(text)?, named(text)) {
            (Some(whole), _) => Ok(whole),
            (None, Ok(Named::Now(name))) => Ok(name),
            (None, Ok(Named::At(name, _) | Named::AtTime(name, _))) => {
                Err(Error::invalid(format!("{text}: this cannot be done to a snapshot of the past"))
                    .with_remedy(instead(&name)))
            }
            (None, Err(e)) => Err(e),
        }
    }

    /// The volume here that is called all of this, though it has an '@' in it.
    fn here_as(&self, text: &str) -> Result<Option<VolumeName>> {
        if !text.contains('@') {
            return Ok(None);
        }
        // With the moment it may be longer than a name can be.
        let Ok(name) = VolumeName::parse(text) else { return Ok(None) };
        Ok(self.engine()?.local_volumes()?.contains(&name).then_some(name))
    }

    /// A volume that is here or in the store, as it is now or at a moment of its past; with its name, and its LSN if
    /// it is of the past.
    pub(crate) fn opened(&self, text: &str) -> Result<(Volume, (VolumeName, Option<Lsn>))> {
        let engine = self.engine()?;
        let (name, moment) = self.named(text)?.parts();
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
                .with_remedy(format!("If the store has it: quire clone {}", word(name))));
        }
        Ok(())
    }

    /// The volumes that were named, or all that have a replica here.
    pub(crate) fn named_or_all(&self, names: &[String]) -> Result<Vec<VolumeName>> {
        if names.is_empty() {
            return self.engine()?.local_volumes();
        }
        names.iter().map(|name| self.plain_name(name)).collect()
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

/// Reads a name as it is. Who gives a path is told what a name looks like.
pub(crate) fn volume_name(text: &str) -> Result<VolumeName> {
    VolumeName::parse(text).map_err(|e| match text.strip_prefix('/') {
        Some(path) => e.with_remedy(format!(
            "A name is no path, and does not begin with '/', such as team/app.db. What SQLite programs open by this path \
             is volume {}.",
            word(format!("fs/{path}"))
        )),
        None => e,
    })
}

/// Reads NAME, NAME@LSN or NAME@TIME. Any other '@' is a part of the name, unless a moment was meant.
fn named(text: &str) -> Result<Named> {
    if let Some((name, moment)) = text.rsplit_once('@') {
        if let Ok(lsn) = moment.parse() {
            return Ok(Named::At(volume_name(name)?, Lsn::try_new(lsn)?));
        }
        if let Some(time_ms) = quire_settings::parse_time(moment) {
            return Ok(Named::AtTime(volume_name(name)?, time_ms));
        }
        if quire_settings::looks_like_moment(moment) {
            return Err(Error::invalid(format!("{text}: {moment:?} is neither an LSN nor a time")).with_remedy(
                format!("An LSN is a whole number from 1: {name}@7; a time has a zone: {name}@2026-01-31T12:00:00Z."),
            ));
        }
    }
    Ok(Named::Now(volume_name(text)?))
}

/// Reads the name of a new volume. None may look like a snapshot's.
pub(crate) fn new_name(text: &str) -> Result<VolumeName> {
    match named(text)? {
        Named::Now(name) => Ok(name),
        Named::At(name, _) | Named::AtTime(name, _) => {
            Err(Error::invalid(format!("{text}: no new volume has a name that means a snapshot of volume {name}"))
                .with_remedy("Choose a name that does not end with an '@' and an LSN or a time."))
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
        for text in ["app@7", "app@2026-01-31T12:00:00Z"] {
            assert!(new_name(text).unwrap_err().message().contains("a snapshot of volume app"), "{text}");
        }
        assert_eq!(new_name("me@home").unwrap(), name("me@home"));
    }

    #[test]
    fn whoever_gives_a_path_is_told_what_a_name_looks_like() {
        for text in ["/srv/app.db", "/srv/app.db@7"] {
            let refused = named(text).unwrap_err();
            let remedy = refused.remedy().unwrap_or_default();
            assert!(remedy.contains("such as team/app.db") && remedy.contains("fs/srv/app.db."), "{refused:?}");
        }
    }
}
