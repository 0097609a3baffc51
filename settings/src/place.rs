//! What a process finds around it: passed in, so that tests choose it.

use std::ffi::OsString;
use std::path::PathBuf;

use quire_proto::{Error, Result};

use crate::Key;
use crate::nearest::nearest;

/// The environment and the folders in which settings are looked for.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The environment variables.
    pub env: Vec<(OsString, OsString)>,
    /// The current folder: its `quire.toml` counts, and relative paths start there.
    pub folder: PathBuf,
    /// The platform's configuration folder for Quire.
    pub config_folder: Option<PathBuf>,
    /// The platform's data folder for Quire: the default of `data_dir`.
    pub data_folder: Option<PathBuf>,
}

impl Place {
    /// Where this process runs.
    pub fn current() -> Result<Place> {
        let folder =
            std::env::current_dir().map_err(|e| Error::from_io("the current folder can not be determined", e))?;
        Ok(Place {
            env: std::env::vars_os().collect(),
            folder,
            config_folder: dirs::config_dir().map(|dir| dir.join("quire")),
            // The local one: a cache does not belong into a profile that roams between machines.
            data_folder: dirs::data_local_dir().map(|dir| dir.join("quire")),
        })
    }

    /// An environment variable; bytes that are not UTF-8 are an error.
    pub(crate) fn var(&self, name: &str) -> Result<Option<&str>> {
        let Some((_, value)) = self.env.iter().find(|(key, _)| key == name) else { return Ok(None) };
        value.to_str().map(Some).ok_or_else(|| Error::invalid(format!("environment variable {name} is not UTF-8")))
    }

    /// A variable that misspells a setting, or nearly is one, is an error: its
    /// value would be missed in silence. Other `QUIRE_…` variables belong to
    /// somebody else, and `QUIRE_TEST_…` to tests. Kubernetes sets `QUIRE_STORE_SERVICE_HOST` and the like for a service
    /// that is called `quire-store`.
    pub(crate) fn refuse_misspelt_variables(&self) -> Result<()> {
        let known = || Key::ALL.map(Key::env).into_iter().chain([TOKEN_FILE_VAR, "QUIRE_DEFAULT_VFS"]);
        for (name, _) in &self.env {
            let Some(suffix) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let is_of_service = ["_SERVICE_", "_PORT_"].iter().any(|part| format!("{suffix}_").contains(part));
            if suffix.starts_with("TEST_") || is_of_service || known().any(|known| *known == **name) {
                continue;
            }
            if let Some(meant) = nearest(suffix, known().filter_map(|known| known.strip_prefix(PREFIX))) {
                return Err(Error::invalid(format!("environment variable {PREFIX}{suffix}: no setting has this name"))
                    .with_remedy(format!("Did you mean {PREFIX}{meant}?")));
            }
        }
        Ok(())
    }
}

const PREFIX: &str = "QUIRE_";

/// Names a file that holds the token.
pub(crate) const TOKEN_FILE_VAR: &str = "QUIRE_TOKEN_FILE";
