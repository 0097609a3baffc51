//! The words that `quire` understands.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Arg, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

/// Databases and files that live in object storage and are worked on here.
///
/// A volume is a versioned array of pages: a SQLite database or any other
/// file. It lives in a store (a folder or a bucket); this machine works on a
/// replica of it, which holds the pages it has read and the commits it has not
/// pushed yet.
#[derive(Parser)]
#[command(name = "quire", version, max_term_width = 100, after_long_help = GUIDE)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

impl Cli {
    /// Reads words, the program's name first.
    pub(crate) fn read<T: Into<OsString> + Clone>(words: impl IntoIterator<Item = T>) -> Result<Cli, clap::Error> {
        let matches = command().try_get_matches_from(words)?;
        let mut cli = Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut command()))?;
        let mut verb = matches.subcommand();
        while let Some((_, matches)) = verb {
            // The nearest to the last word counts, as of options that are global.
            if let Ok(Some(url)) = matches.try_get_one::<String>("store") {
                cli.global.store = Some(url.clone());
            }
            verb = matches.subcommand();
        }
        Ok(cli)
    }
}

/// All words, with --store behind every verb, too. It cannot be global: behind `rm` it is a word of its own.
pub(crate) fn command() -> Command {
    let command = Cli::command();
    let store = command.get_arguments().find(|arg| arg.get_id() == "store").cloned();
    match store {
        Some(store) => with_store(command, &store),
        None => command,
    }
}

fn with_store(command: Command, store: &Arg) -> Command {
    command.mut_subcommands(|verb| {
        let verb = with_store(verb, store);
        let has_its_own = verb.get_arguments().any(|arg| arg.get_long() == Some("store"));
        if has_its_own { verb } else { verb.arg(store.clone()) }
    })
}

/// Reads an address to listen on.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let address = match text.strip_prefix("localhost:") {
        Some(port) => port.parse::<u16>().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => text.parse().ok(),
    };
    address.ok_or_else(|| "write an address and a port, such as 127.0.0.1:7480".to_owned())
}

/// What every verb takes.
#[derive(Args)]
pub(crate) struct Global {
    /// Print JSON instead of text
    ///
    /// One object or array on standard output (`watch`: one object a line). An
    /// error is one object on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Folder of the replicas on this machine [setting: data_dir]
    #[arg(long, global = true, value_name = "FOLDER", value_hint = ValueHint::DirPath, help_heading = "Settings")]
    pub(crate) data_dir: Option<String>,

    /// Where volumes live [setting: store]
    ///
    /// Behind `rm`, --store is another word: there the URL goes before the verb.
    ///
    /// file:///path, memory://, s3://bucket/prefix, gs://bucket/prefix or
    /// az://container/prefix; or http://host:port or https://host:port of `quire serve`. Credentials come from the usual variables of each
    /// cloud, such as AWS_ACCESS_KEY_ID, AWS_REGION and AWS_ENDPOINT_URL.
    // Not global: see `command`.
    #[arg(long, value_name = "URL", help_heading = "Settings")]
    pub(crate) store: Option<String>,

    /// When commits travel: manual, commit, or every so often, such as 5s [setting: sync]
    #[arg(long, global = true, value_name = "MODE", help_heading = "Settings")]
    pub(crate) sync: Option<String>,

    /// Bound of the local cache, such as 2GiB [setting: cache_size]
    #[arg(long, global = true, value_name = "SIZE", help_heading = "Settings")]
    pub(crate) cache_size: Option<String>,

    /// What is logged to standard error, such as info or quire_engine=debug [setting: log]
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Settings")]
    pub(crate) log: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Create an empty volume
    ///
    /// It is made here; `quire push NAME` brings it to the store. Volumes also
    /// come into being by `quire import` and by the first write of a SQLite
    /// program to file:NAME?vfs=quire.
    Create {
        /// Its name: parts divided by '/', such as team/app.db
        name: String,
        /// Size of its pages in bytes: a power of two from 512 to 65536
        #[arg(long, value_name = "N", default_value_t = 4096)]
        page_size: u32,
    },

    /// List the volumes here and in the store
    Ls {
        /// Only names that begin with this
        prefix: Option<String>,
    },

    /// Show one volume's facts
    ///
    /// NAME@LSN and NAME@TIME show a commit of the past. A TIME is written as
    /// 2026-01-31T12:00:00Z; the store's clock counts.
    Info {
        /// The volume, NAME@LSN or NAME@TIME
        name: String,
    },

    /// Take a SQLite database or any other file in as a new volume
    ///
    /// A SQLite database may be in use and in WAL mode: the copy is one
    /// consistent state of it, and the file itself is not changed. While the
    /// copy runs, a writer of a database that is not in WAL mode has to wait.
    /// Any other file is taken byte for byte. The volume is committed here in
    /// one piece or not at all; `quire push NAME` brings it to the store.
    #[command(after_long_help = "Examples:\n  quire import app.db team/app && quire push team/app\n  \
                                 quire import --page-size 65536 video.mp4 media/video")]
    Import {
        /// The file to take in
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The name of the new volume; an existing one must be empty
        name: String,
        /// Size of the pages in bytes for a file that is no database [default: 4096]
        #[arg(long, value_name = "N")]
        page_size: Option<u32>,
        /// Take the bytes as they are, even if the file is a SQLite database
        #[arg(long)]
        bytes: bool,
    },

    /// Write a volume as an ordinary file
    ///
    /// The file appears whole or not at all. An existing one stays unless
    /// --force is given.
    #[command(after_long_help = "Examples:\n  quire export team/app app.db\n  \
                                 quire export team/app@120 old.db")]
    Export {
        /// The volume, NAME@LSN or NAME@TIME
        name: String,
        /// The file to write
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
    },

    /// Bring this machine's commits to the store
    ///
    /// If somebody else has pushed in the meantime, the volume is diverged:
    /// nothing is sent, nothing is lost, the exit status is 3, and
    /// `quire status` says how to go on.
    Push(Names),

    /// Go to the store's newest commits
    ///
    /// Only what changed is learnt; pages are fetched when they are read.
    Pull(Names),

    /// Pull if behind, push if ahead
    Sync(Names),

    /// Learn the store's newest commit without going to it
    Fetch(Names),

    /// Show how the volumes here and in the store relate
    ///
    /// The store is not asked; `quire fetch` does that. States: clean, ahead
    /// (commits to push), behind (commits to pull), diverged (both), in_doubt
    /// (a push whose outcome is not known yet).
    Status(Names),

    /// Show the commits of a volume in the store, the newest first
    Log {
        /// The volume
        name: String,
    },

    /// Make a replica of a volume in the store
    ///
    /// It can be used at once: pages are fetched when they are read.
    #[command(after_long_help = "Examples:\n  quire clone team/app\n  quire clone team/app app-for-tests")]
    Clone {
        /// The volume in the store
        name: String,
        /// What the replica is called here [default: NAME]
        local_name: Option<String>,
    },

    /// Make a new volume out of a snapshot of another one
    ///
    /// No data is copied: a fork takes a moment, whatever the size, and works
    /// for volumes that were never fetched. NAME alone is the volume as it is
    /// here, with its unpushed commits, or as the store has it. NAME@LSN and
    /// NAME@TIME are snapshots of the past. A fork of a snapshot that the store
    /// has is there at once; else the first push brings it there.
    #[command(after_long_help = "Examples:\n  quire fork team/app team/app-test\n  \
                                 quire fork team/app@120 before-the-accident\n  \
                                 quire fork team/app@2026-01-31T12:00:00Z january")]
    Fork {
        /// The volume, NAME@LSN or NAME@TIME
        name: String,
        /// The name of the new volume
        new: String,
    },

    /// Make an old snapshot a volume's content again
    ///
    /// It is a new commit: the history stays, and nothing is copied. Unpushed
    /// commits are in the way: push them, or put them aside with reset.
    #[command(after_long_help = "Examples:\n  quire restore team/app@120\n  \
                                 quire restore team/app@2026-01-31T12:00:00Z")]
    Restore {
        /// NAME@LSN or NAME@TIME
        name: String,
    },

    /// Show which pages changed between two snapshots
    ///
    /// For a SQLite database also whose they are: tables, indexes, the schema.
    /// Pages that only hold the rest of long rows cannot be told apart without
    /// reading everything, and count as other.
    #[command(after_long_help = "Examples:\n  quire diff team/app 120 134\n  \
                                 quire diff team/app 2026-01-30T00:00:00Z 2026-01-31T00:00:00Z")]
    Diff {
        /// The volume
        name: String,
        /// An LSN or a time
        a: String,
        /// Another one
        b: String,
    },

    /// Go to the store's newest commit, keeping unpushed work under another name
    ///
    /// Unpushed commits stay readable as volume NAME.dropped-N, which the
    /// answer names.
    Reset {
        /// The volume
        name: String,
    },

    /// Wait until a commit is in the store
    Wait {
        /// The volume
        name: String,
        /// The LSN to wait for
        lsn: u64,
        /// Give up after this time, such as 500ms, 30s or 5min
        #[arg(long, value_name = "TIME", default_value = "60s")]
        timeout: String,
    },

    /// Rename a volume, here and in the store
    Mv {
        /// The volume
        name: String,
        /// Its new name, which must be free
        new: String,
    },

    /// Remove the replica of a volume, or the volume in the store
    ///
    /// Without --store only what this machine keeps is removed, and not if it
    /// holds commits that were never pushed. With --store the volume is deleted
    /// for everybody; its history stays until it is collected, and the replica
    /// here stays too.
    Rm {
        /// The volume
        name: String,
        /// Delete the volume in the store
        #[arg(long = "store", conflicts_with = "force")]
        in_store: bool,
        /// Remove the replica with its unpushed commits
        #[arg(long)]
        force: bool,
    },

    /// Run SQL on a volume, or open a shell on it
    ///
    /// Without SQL, standard input is read: a shell with history and completion
    /// on a terminal, a script otherwise. Rows are a table on a terminal and
    /// tab-separated values in a pipe. `SELECT quire_push()` and the other
    /// functions and tables of the extension are there too.
    #[command(after_long_help = "Examples:\n  quire sql team/app\n  \
                                 quire sql team/app 'SELECT count(*) FROM orders'\n  \
                                 quire sql team/app@120 'SELECT count(*) FROM orders'\n  \
                                 quire sql --json team/app 'SELECT * FROM quire_status'")]
    Sql {
        /// The volume, or NAME@LSN or NAME@TIME to read a snapshot of the past
        name: String,
        /// Statements divided by ';'
        sql: Option<String>,
    },

    /// Write a checkpoint of a volume to the store
    ///
    /// A checkpoint lists where every page is, and carries those that are
    /// needed first: whoever opens the volume afterwards reads none of the
    /// commits before it. Pushes write one now and then by themselves.
    Checkpoint {
        /// The volume
        name: String,
    },

    /// Bring what is scattered of a volume together in the store
    ///
    /// Small commits, and segments of which little is still needed, leave the
    /// newest snapshot in many places. What lies badly of it is rewritten, a
    /// SQLite database by its B-trees. The history stays as it is, and nobody
    /// waits. An interrupted run loses little: the next one goes on.
    Compact {
        /// The volume
        name: String,
    },

    /// Say what to keep of a volume's history, or show it
    ///
    /// The newest snapshot is always kept, and by default all of them are. What
    /// need not be kept goes when somebody collects: by two runs of `quire gc`,
    /// a day apart.
    #[command(after_long_help = "Examples:\n  quire keep team/app\n  quire keep team/app all\n  \
                                 quire keep team/app 7d\n  quire keep team/app last 100\n  \
                                 quire keep team/app@120\n  quire keep team/app@120 --no-longer")]
    Keep {
        /// The volume; NAME@LSN or NAME@TIME keeps that snapshot however old it is
        name: String,
        /// `all`, a time such as `7d` or `12h` (units: s, min, h, d, w), or `last N`
        what: Vec<String>,
        /// Keep the snapshot NAME@LSN no longer than the others, also for work that is not in the store
        #[arg(long, conflicts_with = "what")]
        no_longer: bool,
    },

    /// Let go what need not be kept of the history of volumes in the store
    ///
    /// `quire keep` says what is kept; what forks and restores need is kept
    /// besides. Whoever reads an old snapshot may go on for a grace; so what is
    /// not kept any more goes when gc is run again after that.
    Gc {
        /// Volumes; all of the store if none is named
        names: Vec<String>,
        /// Only say what would go, and why the rest stays
        #[arg(long)]
        dry_run: bool,
        /// How long readers of what is not kept may go on, such as 1d, 2h or 0s
        #[arg(long, value_name = "TIME", default_value = "1d")]
        grace: String,
    },

    /// Fetch all pages that are missing here
    ///
    /// Afterwards the visible snapshot can be read without the store. It goes
    /// on where an earlier run stopped.
    Hydrate {
        /// The volume
        name: String,
    },

    /// Check that a volume can be read: every page here, and what the store keeps of it
    ///
    /// In the store that is every commit, whether the segments of all snapshots are there, and the newest checkpoint.
    /// The report says what is damaged, and which snapshots can still be read. The exit status is 4 if there is damage.
    Verify {
        /// The volume, NAME@LSN or NAME@TIME
        name: String,
        /// Read every byte in the store, and check the structure of a SQLite database (its integrity_check)
        #[arg(long)]
        deep: bool,
    },

    /// Print each commit as it reaches the store, until interrupted
    ///
    /// It keeps its data directory to itself: to work beside it, give it one of
    /// its own with --data-dir.
    Watch {
        /// The volume
        name: String,
        /// Begin with the commit after this LSN, 0 for the first [default: the newest]
        #[arg(long, value_name = "LSN")]
        after: Option<u64>,
    },

    /// Serve the store to clients that need no credentials for it
    ///
    /// They use it by --store http://ADDRESS. Any number of servers may serve
    /// one store, and clients may go to the store directly beside them. With
    /// --token-keys only those who have a token are let in; without, whoever can
    /// reach the address may do everything, so it is this machine's own unless
    /// --insecure is said. Keys and certificates are read again when they change.
    #[command(after_long_help = "Examples:\n  quire --store s3://backup/quire serve\n  \
                                 quire --store s3://backup/quire serve --listen 0.0.0.0:7480 --token-keys \
                                 token.key.pub --tls-cert chain.pem --tls-key key.pem")]
    Serve(ServeArgs),

    /// Look after the server that the store is
    #[command(subcommand)]
    Server(ServerVerb),

    /// Make tokens that say who may do what on a server, and the key that signs them
    #[command(subcommand)]
    Token(TokenVerb),

    /// Show every setting, its value and where that comes from
    Config,

    /// Show the versions of Quire and of the SQLite in it
    Version,

    /// Print a completion script for a shell
    #[command(
        after_long_help = "Example:\n  quire completions bash > ~/.local/share/bash-completion/completions/quire"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What `serve` is told.
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 is one that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7480", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// Where /metrics, /healthz and /readyz are, or `none` [default: 127.0.0.1, the port after that of --listen]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<String>,
    /// Which half of the store
    #[arg(long, value_enum, default_value_t = ServedRole::All)]
    pub(crate) role: ServedRole,
    /// How much memory to keep frames in that were read, such as 1GiB; at least 1MiB, or 0 to keep none
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub(crate) cache_memory: ByteSize,
    /// Keep frames in this folder, too, of a fast disk
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// How much of that disk to use
    #[arg(long, value_name = "SIZE", default_value = "10GiB", requires = "cache_dir")]
    pub(crate) cache_disk: ByteSize,
    /// Let only those in who have a token of one of these public keys (a JSON Web Key Set)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_keys: Option<PathBuf>,
    /// Let in so many calls a second of each subject of tokens; more are told when to come again
    #[arg(long, value_name = "NUMBER", requires = "token_keys")]
    pub(crate) calls_per_second: Option<NonZeroU32>,
    /// Sign tokens with this key for those who ask with a token of their own, and get no more than they have
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "token_keys")]
    pub(crate) token_signing_key: Option<PathBuf>,
    /// How much each volume may take in the store, its history included, such as 10GiB; at least 1MiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) volume_quota: Option<ByteSize>,
    /// The server's certificate and those above it, in PEM: clients then use https://
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the certificate, in PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Ask clients for a certificate, which one of these authorities has made
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_cert")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// How soon watchers are told of what was committed elsewhere: a request a volume that is watched
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(crate) poll_interval: String,
    /// Do no upkeep unless somebody asks for it: another server of the same store does
    #[arg(long)]
    pub(crate) no_maintenance: bool,
    /// How much upkeep reads and writes in a second; 0 is as much as it can
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub(crate) maintenance_rate: ByteSize,
    /// How often every byte of each volume is read, such as 7d; or `never`
    #[arg(long, value_name = "TIME", default_value = "7d")]
    pub(crate) verify_every: String,
    /// Listen on an address that others can reach, though they could do everything or overhear tokens
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// What can be done about tokens.
#[derive(Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a key that signs tokens; its public half, for servers, lies beside it in FILE.pub
    Key {
        /// The file of the key; none is overwritten [default: token.key in Quire's configuration folder]
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Print a new token
    ///
    /// Whoever has it gives it to the server by QUIRE_TOKEN or QUIRE_TOKEN_FILE.
    #[command(after_long_help = "Examples:\n  quire token new --volumes 'team/*' --allow read,write\n  \
                                 quire token new --volumes '*' --allow read --expires 90d --subject reports")]
    New(TokenArgs),
}

/// What a token is made of, and by what.
#[derive(Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) grant: GrantArgs,
    /// The file of the key that signs it [default: token.key in Quire's configuration folder]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
}

/// What a token allows.
#[derive(Args)]
pub(crate) struct GrantArgs {
    /// Volumes: names, or the beginning of names and a `*`
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    pub(crate) volumes: Vec<String>,
    /// Rights: read, write, admin (to end volumes, rename them, and decide what is kept)
    #[arg(long, value_name = "RIGHTS", value_delimiter = ',', required = true)]
    pub(crate) allow: Vec<String>,
    /// How long it is good, such as 30min, 24h or 90d; or `never`
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) expires: String,
    /// Allow nothing of what a volume was before this LSN
    #[arg(long, value_name = "LSN")]
    pub(crate) from_lsn: Option<u64>,
    /// Who it is for, as the server's messages say
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) subject: String,
}

/// What can be asked of a server by those who look after it.
#[derive(Subcommand)]
pub(crate) enum ServerVerb {
    /// How it is, and what it has done
    Info,
    /// Who is connected
    Clients,
    /// What upkeep it has done lately, and is doing
    Runs {
        /// Only of this volume
        name: Option<String>,
    },
    /// A volume, with what it takes in the store
    Volume {
        /// Its name in the store
        name: String,
    },
    /// Show what it logs, or change that until it ends
    LogFilter {
        /// Such as info, or quire_serve=debug,warn
        filter: Option<String>,
    },
    /// Who you are to it, and what you may do
    Whoami,
    /// Have it sign a token for somebody, who gets no more than you have
    Token(GrantArgs),
    /// End it: what is under way is answered first
    Drain {
        /// How long it says that it is not ready before it ends, so that no more is sent to it
        #[arg(long, value_name = "TIME", default_value = "10s")]
        wait: String,
    },
}

/// Some volumes, or all of them.
#[derive(Args)]
pub(crate) struct Names {
    /// The volumes [default: all that have a replica here]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

const GUIDE: &str = "\
First steps:
  quire import app.db team/app       take a database in
  quire push team/app                bring it to the store
  quire clone team/app               on another machine: use it at once
  quire sql team/app                 look around

Settings come from flags, then the environment (QUIRE_STORE, QUIRE_DATA_DIR, ...), then
quire.toml in this folder or in the platform's configuration folder; `quire config` shows
each with its source.

Times to wait or to keep have a unit: ms, s, min, h, d, w. So have sizes: KiB, MiB, GiB, ...;
a number alone is bytes.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 diverged or conflict, 4 damage found,
130 interrupted.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_do_not_contradict_each_other() {
        command().debug_assert();
    }

    #[test]
    fn the_store_s_url_and_rm_s_word_can_stand_together() {
        let cli = Cli::read(["quire", "--store", "memory://", "rm", "app", "--store"]).unwrap();
        assert_eq!(cli.global.store.as_deref(), Some("memory://"));
        assert!(matches!(cli.verb, Verb::Rm { in_store: true, .. }));
        let cli = Cli::read(["quire", "rm", "--store", "app"]).unwrap();
        assert!(cli.global.store.is_none() && matches!(cli.verb, Verb::Rm { in_store: true, .. }));
        assert!(Cli::read(["quire", "rm", "app", "--store", "memory://"]).is_err());
    }

    #[test]
    fn the_store_s_url_may_stand_behind_every_other_verb() {
        for words in [&["serve"][..], &["ls"], &["push", "app"], &["server", "info"], &["sql", "app", "SELECT 1"]] {
            let words = [&["quire", "--store", "s3://a"][..], words, &["--store", "memory://"]].concat();
            assert_eq!(
                Cli::read(words.iter().copied()).unwrap().global.store.as_deref(),
                Some("memory://"),
                "{words:?}"
            );
        }
    }

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(address("localhost:7480"), address("127.0.0.1:7480"));
        assert_eq!(address("[::1]:0").unwrap().port(), 0);
        for text in ["7480", "localhost", "localhost:", "127.0.0.1", "host:7480", ""] {
            assert!(address(text).unwrap_err().contains("127.0.0.1:7480"), "{text}");
        }
    }
}

/// Which half of a store `serve` serves.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ServedRole {
    /// Both
    All,
    /// The order of commits
    Metastore,
    /// The pages
    Pagestore,
}
