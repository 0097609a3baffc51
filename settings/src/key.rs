//! The settings that exist.

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Where this machine keeps its replicas.
    DataDir,
    /// Where volumes live.
    Store,
    /// When commits travel to the store.
    Sync,
    /// Bound of the cache of pages that can be fetched again.
    CacheSize,
    /// Bearer token for a Quire server.
    Token,
    /// What this machine shows a Quire server that asks for a certificate.
    ClientCert,
    /// What is logged.
    Log,
}

impl Key {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Key; 7] =
        [Key::DataDir, Key::Store, Key::Sync, Key::CacheSize, Key::Token, Key::ClientCert, Key::Log];

    /// Its name in `quire.toml` and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Key::DataDir => "data_dir",
            Key::Store => "store",
            Key::Sync => "sync",
            Key::CacheSize => "cache_size",
            Key::Token => "token",
            Key::ClientCert => "client_cert",
            Key::Log => "log",
        }
    }

    /// The environment variable that sets it.
    pub const fn env(self) -> &'static str {
        match self {
            Key::DataDir => "QUIRE_DATA_DIR",
            Key::Store => "QUIRE_STORE",
            Key::Sync => "QUIRE_SYNC",
            Key::CacheSize => "QUIRE_CACHE_SIZE",
            Key::Token => "QUIRE_TOKEN",
            Key::ClientCert => "QUIRE_CLIENT_CERT",
            Key::Log => "QUIRE_LOG",
        }
    }

    /// The values it takes, as the end of a sentence that begins with "Allowed:".
    pub const fn allowed(self) -> &'static str {
        match self {
            Key::DataDir => "the path of a folder",
            Key::Store => {
                "file:///path, memory://, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, \
                 http://host:port, https://host:port"
            }
            Key::Sync => "manual, commit, or a duration from 10ms to 24h such as 500ms, 5s, 2min",
            Key::CacheSize => "a size of at least 1MiB, such as 512MiB or 2GiB",
            Key::Token => "the text of a token, without white space",
            Key::ClientCert => "the path of a PEM file with a certificate and its private key",
            Key::Log => "a level (error, warn, info, debug, trace, off) or a filter such as quire_engine=debug",
        }
    }

    /// What it is for.
    pub const fn meaning(self) -> &'static str {
        match self {
            Key::DataDir => "local state: the cache and unpushed commits",
            Key::Store => "where volumes live",
            Key::Sync => "when commits travel: when told, at each commit, or in the background",
            Key::CacheSize => "bound of the local cache of pages that can be fetched again",
            Key::Token => "bearer token for a Quire server",
            Key::ClientCert => "certificate and key to show a Quire server that asks for one",
            Key::Log => "what is logged to standard error",
        }
    }

    /// The setting with this name in `quire.toml`.
    pub fn by_name(name: &str) -> Option<Key> {
        Key::ALL.into_iter().find(|key| key.name() == name)
    }
}
