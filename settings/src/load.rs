//! From the places where a value may stand to checked settings.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytesize::ByteSize;
use quire_engine::SyncMode;
use quire_proto::{Error, Result};

use crate::file::ConfigFile;
use crate::place::TOKEN_FILE_VAR;
use crate::source::wrong;
use crate::sync::{parse_sync, show_sync};
use crate::{Key, Place, Source, StoreUrl, Token};

const SMALLEST_CACHE: ByteSize = ByteSize::mib(1);

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where this machine keeps its replicas; absolute.
    pub data_dir: PathBuf,
    /// Where volumes live.
    pub store: StoreUrl,
    /// When commits travel to the store.
    pub sync: SyncMode,
    /// Bound of the cache of pages that can be fetched again, in bytes.
    pub cache_size: u64,
    /// Bearer token for a Quire server.
    pub token: Option<Token>,
    /// A PEM file with a certificate and its private key, to show a Quire server that asks for one; absolute.
    pub client_cert: Option<PathBuf>,
    /// The filter of the log; whoever sets up the log checks it (see [`Settings::wrong`]).
    pub log: String,
    sources: [Source; Key::ALL.len()],
}

/// One setting with its value and where the value comes from.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The setting.
    pub key: Key,
    /// Its value in force; a token is not shown.
    pub value: String,
    /// Where that comes from.
    pub source: Source,
}

/// Values that go before everything else: flags and URI parameters.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    values: Vec<(Key, String, Source)>,
}

impl Overrides {
    /// Adds the value of a flag or URI parameter, if it was given.
    #[must_use]
    pub fn with(mut self, key: Key, value: Option<&str>, source: Source) -> Self {
        if let Some(value) = value {
            self.values.push((key, value.to_owned(), source));
        }
        self
    }
}

/// The settings of this process.
pub fn load(overrides: &Overrides) -> Result<Settings> {
    load_from(overrides, &Place::current()?)
}

/// The settings of a process that runs at `place`.
pub fn load_from(overrides: &Overrides, place: &Place) -> Result<Settings> {
    place.refuse_misspelt_variables()?;
    let mut files = Vec::new();
    for folder in [Some(&place.folder), place.config_folder.as_ref()].into_iter().flatten() {
        files.extend(ConfigFile::read(folder)?);
    }
    let layers = Layers { overrides, place, files };

    let data_dir = layers.data_dir()?;
    let store = match layers.value(Key::Store)? {
        Some(found) => (StoreUrl::parse(&found.text, &found.source)?, found.source),
        None => (StoreUrl::of_folder(&data_dir.0.join("store"))?, Source::Default),
    };
    let sync = match layers.value(Key::Sync)? {
        Some(found) => (parse_sync(&found.text, &found.source)?, found.source),
        None => (SyncMode::Manual, Source::Default),
    };
    let cache_size = match layers.value(Key::CacheSize)? {
        Some(found) => (parse_cache_size(&found.text, &found.source)?, found.source),
        None => (ByteSize::gib(2).as_u64(), Source::Default),
    };
    let token = layers.token()?;
    let log = match layers.value(Key::Log)? {
        Some(found) => (found.text, found.source),
        None => ("warn".to_owned(), Source::Default),
    };
    let client_cert = match layers.value(Key::ClientCert)? {
        Some(found) => (Some(layers.absolute(Key::ClientCert, &found)?), found.source),
        None => (None, Source::Default),
    };
    Ok(Settings {
        data_dir: data_dir.0,
        store: store.0,
        sync: sync.0,
        cache_size: cache_size.0,
        token: token.0,
        client_cert: client_cert.0,
        log: log.0,
        sources: [data_dir.1, store.1, sync.1, cache_size.1, token.1, client_cert.1, log.1],
    })
}

impl Settings {
    /// Each setting with its value in force and where that comes from.
    pub fn explain(&self) -> Vec<Explained> {
        Key::ALL
            .into_iter()
            .zip(&self.sources)
            .map(|(key, source)| Explained { key, value: self.show(key), source: source.clone() })
            .collect()
    }

    /// An error about a value that only its user can check: it names the
    /// setting, its source and what is allowed.
    pub fn wrong(&self, key: Key, problem: impl std::fmt::Display) -> Error {
        wrong(key, &self.sources[key as usize], problem)
    }

    fn show(&self, key: Key) -> String {
        match key {
            Key::DataDir => self.data_dir.display().to_string(),
            Key::Store => self.store.to_string(),
            Key::Sync => show_sync(self.sync),
            Key::CacheSize => show_size(self.cache_size),
            Key::Token => self.token.as_ref().map_or("", |_| "(hidden)").to_owned(),
            Key::ClientCert => self.client_cert.as_ref().map_or_else(String::new, |path| path.display().to_string()),
            Key::Log => self.log.clone(),
        }
    }
}

/// The places where a value may stand, the first one first.
struct Layers<'a> {
    overrides: &'a Overrides,
    place: &'a Place,
    files: Vec<ConfigFile>,
}

/// A value as it was written.
struct Found {
    text: String,
    source: Source,
    /// Where a relative path starts.
    folder: PathBuf,
}

impl Layers<'_> {
    /// The value that counts. An empty one is an error rather than "not set":
    /// it usually is a variable that somebody forgot to fill.
    fn value(&self, key: Key) -> Result<Option<Found>> {
        let here = || self.place.folder.clone();
        let given = self.overrides.values.iter().find(|(name, ..)| *name == key);
        let found = if let Some((_, text, source)) = given {
            Some(Found { text: text.clone(), source: source.clone(), folder: here() })
        } else if let Some(text) = self.place.var(key.env())? {
            Some(Found { text: text.to_owned(), source: Source::Environment(key.env()), folder: here() })
        } else {
            self.files.iter().find_map(|file| {
                let (text, source) = file.value(key)?;
                Some(Found { text: text.to_owned(), source, folder: file.folder().to_owned() })
            })
        };
        match found {
            Some(found) if found.text.is_empty() => Err(wrong(key, &found.source, "the value is empty")),
            found => Ok(found),
        }
    }

    /// The path that a value is. `~/` is the user's home, as in a shell: none reads `quire.toml`.
    fn absolute(&self, key: Key, found: &Found) -> Result<PathBuf> {
        let path = match found.text.strip_prefix("~/") {
            None => found.folder.join(&found.text),
            Some(rest) => match self.place.var("HOME")? {
                Some(home) => Path::new(home).join(rest),
                None => return Err(wrong(key, &found.source, format!("{:?}: this user has no home", found.text))),
            },
        };
        std::path::absolute(path)
            .map_err(|e| wrong(key, &found.source, format!("{:?} is no path", found.text)).with_source(e))
    }

    fn data_dir(&self) -> Result<(PathBuf, Source)> {
        if let Some(found) = self.value(Key::DataDir)? {
            return Ok((self.absolute(Key::DataDir, &found)?, found.source));
        }
        let folder = self.place.data_folder.clone().ok_or_else(|| {
            wrong(Key::DataDir, &Source::Default, "this user has no home, so there is no data folder")
                .with_remedy("Set QUIRE_DATA_DIR to a folder that this user may write.")
        })?;
        Ok((folder, Source::Default))
    }

    /// The token is the one setting that may also stand in a file of its own.
    fn token(&self) -> Result<(Option<Token>, Source)> {
        let found = self.value(Key::Token)?;
        // A flag goes before the environment, `quire.toml` after it.
        let outranked = |found: &Found| matches!(found.source, Source::Flag(_) | Source::Uri(_));
        let token_file = self.place.var(TOKEN_FILE_VAR)?.filter(|_| !found.as_ref().is_some_and(outranked));
        match (found, token_file) {
            (Some(Found { source: Source::Environment(_), .. }), Some(_)) => {
                Err(Error::invalid("environment variables QUIRE_TOKEN and QUIRE_TOKEN_FILE are both set")
                    .with_remedy("Unset one of the two."))
            }
            (_, Some(path)) => {
                let source = Source::Environment(TOKEN_FILE_VAR);
                let text = read_token_file(&self.place.folder.join(path))?;
                Ok((Some(checked_token(&text, &source)?), source))
            }
            (Some(found), None) => Ok((Some(checked_token(&found.text, &found.source)?), found.source)),
            (None, None) => Ok((None, Source::Default)),
        }
    }
}

fn checked_token(text: &str, source: &Source) -> Result<Token> {
    Token::parse(text).ok_or_else(|| wrong(Key::Token, source, "it is empty or has white space or control characters"))
}

fn read_token_file(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| {
        Error::from_io(format!("setting token ({TOKEN_FILE_VAR}): reading {}", path.display()), e)
            .with_remedy("QUIRE_TOKEN_FILE names a readable file that holds nothing but the token.")
    })
}

pub(crate) fn parse_cache_size(text: &str, source: &Source) -> Result<u64> {
    match ByteSize::from_str(text) {
        Ok(size) if size >= SMALLEST_CACHE => Ok(size.as_u64()),
        Ok(_) => Err(wrong(Key::CacheSize, source, format!("{text:?} is too small"))),
        Err(_) => Err(wrong(Key::CacheSize, source, format!("{text:?} is not a size"))),
    }
}

/// As it is written in settings: in the unit that shows the size exactly, by the smallest number.
pub(crate) fn show_size(bytes: u64) -> String {
    let binary = in_units(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
    let decimal = in_units(bytes, 1000, ["B", "kB", "MB", "GB", "TB"]);
    let (size, unit) = if decimal.0 < binary.0 { decimal } else { binary };
    format!("{size}{unit}")
}

/// A size in the largest of units that shows it exactly; each is `step` times the one before.
fn in_units(bytes: u64, step: u64, units: [&'static str; 5]) -> (u64, &'static str) {
    let mut unit = 0;
    let mut size = bytes;
    while size > 0 && size.is_multiple_of(step) && unit + 1 < units.len() {
        size /= step;
        unit += 1;
    }
    (size, units[unit])
}
