//! What is measured: plain SQLite, Quire, or any other VFS extension.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

/// One way to have a SQLite database.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Contender {
    pub(crate) name: String,
    /// The extension and its VFS; none for plain SQLite.
    pub(crate) vfs: Option<(PathBuf, String)>,
    /// Where the extension is entered, if SQLite cannot tell from its name.
    pub(crate) entry: Option<String>,
    /// Variables of its environment, in which `{data}` stands for its data directory.
    pub(crate) variables: Vec<(String, String)>,
    /// Run on every connection.
    pub(crate) setup: String,
    /// SQL that pushes.
    pub(crate) push: Option<String>,
    /// How an empty data directory becomes a replica; without it the contender has none.
    pub(crate) replica: Option<Replica>,
}

/// What makes a replica of what was pushed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Replica {
    /// Asks the one who pushed what the replica has to name, if that is not the volume: the last word of at least
    /// `ID_LENGTH` characters of the answer.
    pub(crate) ask: Option<String>,
    /// What the replica runs when it is opened first, statements in which `{id}` stands for that.
    pub(crate) clone: Option<String>,
    pub(crate) pull: String,
}

/// What a word must be as long as to be an identifier.
const ID_LENGTH: usize = 20;

/// The names that the report compares.
pub(crate) const PLAIN: &str = "plain, NORMAL";
pub(crate) const PLAIN_SYNCED: &str = "plain, FULL";
pub(crate) const QUIRE: &str = "quire, NORMAL";
pub(crate) const QUIRE_SYNCED: &str = "quire, FULL";

/// Plain SQLite and Quire, each with and without a sync at every commit.
pub(crate) fn standard(extension: &Path) -> Vec<Contender> {
    let plain =
        |name: &str, setup: &str| Contender { name: name.to_owned(), setup: setup.to_owned(), ..Contender::default() };
    let quire = |name: &str, setup: &str| Contender {
        vfs: Some((extension.to_owned(), "quire".to_owned())),
        push: Some("SELECT quire_push()".to_owned()),
        replica: Some(Replica { pull: "SELECT quire_pull()".to_owned(), ..Replica::default() }),
        ..plain(name, setup)
    };
    vec![
        plain(PLAIN, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"),
        plain(PLAIN_SYNCED, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"),
        quire(QUIRE, "PRAGMA synchronous = NORMAL"),
        quire(QUIRE_SYNCED, "PRAGMA synchronous = FULL"),
    ]
}

/// Reads `name=PATH,vfs=NAME[,entry=SYMBOL][,env=VARIABLE=VALUE]...[,ask=SQL][,clone=SQL][,pull=SQL][,push=SQL]`; the SQL
/// that pushes comes last and may hold commas.
pub(crate) fn parse_peer(text: &str) -> Result<Contender> {
    let usage =
        "wanted: name=PATH,vfs=NAME[,entry=SYMBOL][,env=VARIABLE=VALUE]...[,ask=SQL][,clone=SQL][,pull=SQL][,push=SQL]";
    let (front, push) = match text.split_once(",push=") {
        Some((front, push)) => (front, Some(push.to_owned())),
        None => (text, None),
    };
    let mut words = front.split(',');
    let (name, path) = words.next().and_then(|word| word.split_once('=')).context(usage)?;
    let mut peer = Contender { name: name.to_owned(), push, ..Contender::default() };
    let mut vfs = None;
    for word in words {
        match word.split_once('=').context(usage)? {
            ("vfs", value) => vfs = Some(value.to_owned()),
            ("entry", value) => peer.entry = Some(value.to_owned()),
            ("ask", sql) => peer.replica.get_or_insert_default().ask = Some(sql.to_owned()),
            ("clone", sql) => peer.replica.get_or_insert_default().clone = Some(sql.to_owned()),
            ("pull", sql) => peer.replica.get_or_insert_default().pull = sql.to_owned(),
            ("env", value) => {
                let (variable, value) = value.split_once('=').context(usage)?;
                peer.variables.push((variable.to_owned(), value.to_owned()));
            }
            _ => bail!(usage),
        }
    }
    let vfs = vfs.context(usage)?;
    let path = PathBuf::from(path).canonicalize().with_context(|| format!("no extension at {path}"))?;
    Ok(Contender { vfs: Some((path, vfs)), ..peer })
}

impl Contender {
    /// Opens the database in `folder`, or the volume, as a program would.
    pub(crate) fn open(&self, folder: &Path, volume: &str) -> Result<Connection> {
        let db = match &self.vfs {
            None => Connection::open(folder.join("plain.db"))?,
            Some((_, vfs)) => Connection::open(format!("file:{volume}?vfs={vfs}"))?,
        };
        db.execute_batch(&self.setup)?;
        Ok(db)
    }

    /// Opens an empty replica; `id` is the file with what the one who pushed was asked for.
    pub(crate) fn begin_replica(&self, folder: &Path, volume: &str, id: &Path) -> Result<Connection> {
        let db = self.open(folder, volume)?;
        let Some(Replica { ask, clone: Some(clone), .. }) = &self.replica else {
            return Ok(db);
        };
        let id = match ask {
            Some(_) => std::fs::read_to_string(id).context("what the replica has to name: phase `push` asks for it")?,
            None => String::new(),
        };
        db.execute_batch(&clone.replace("{id}", &id))?;
        Ok(db)
    }

    /// Asks the one who pushed what a replica has to name, and keeps it in the file `id`.
    pub(crate) fn ask_id(&self, db: &Connection, id: &Path) -> Result<()> {
        let Some(ask) = self.replica.as_ref().and_then(|replica| replica.ask.as_ref()) else {
            return Ok(());
        };
        let answer: String = db.query_row(ask, [], |row| row.get(0))?;
        let mut words = answer.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let word = words.rfind(|word| word.len() >= ID_LENGTH);
        Ok(std::fs::write(id, word.with_context(|| format!("no identifier in {answer:?}"))?)?)
    }

    /// Loads the extension into this process.
    pub(crate) fn load(&self) -> Result<()> {
        let Some((extension, _)) = &self.vfs else {
            return Ok(());
        };
        let loader = Connection::open_in_memory()?;
        // SAFETY: whoever runs the benchmark names the extension to measure.
        unsafe {
            loader.load_extension_enable()?;
            loader.load_extension(extension, self.entry.as_deref())?;
        }
        Ok(())
    }
}

/// Runs SQL that may return a row.
pub(crate) fn run(db: &Connection, sql: &str) -> Result<()> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_path_a_vfs_and_sql_that_may_hold_commas() {
        let peer = parse_peer("other=/,vfs=theirs,push=SELECT push(1, 2)").unwrap();
        assert_eq!((peer.name.as_str(), peer.push.as_deref()), ("other", Some("SELECT push(1, 2)")));
        assert_eq!(peer.vfs, Some((PathBuf::from("/"), "theirs".to_owned())));
        let peer = parse_peer("other=/,vfs=theirs").unwrap();
        assert!(peer.push.is_none() && peer.replica.is_none(), "{peer:?}");
        let peer = parse_peer("other=/,vfs=theirs,ask=PRAGMA a,clone=PRAGMA b = '{id}',pull=PRAGMA c").unwrap();
        let Replica { ask, clone, pull } = peer.replica.unwrap();
        assert_eq!(
            (ask.unwrap(), clone.unwrap(), pull),
            ("PRAGMA a".into(), "PRAGMA b = '{id}'".into(), "PRAGMA c".into())
        );
        let peer = parse_peer("other=/,vfs=theirs,entry=begin,env=A=x={data},env=B=,push=x").unwrap();
        assert_eq!(peer.entry.as_deref(), Some("begin"));
        assert_eq!(
            peer.variables,
            [("A", "x={data}"), ("B", "")].map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_wrong_peer_says_what_is_wanted() {
        for text in ["", "other", "other=/", "other=/,push=x", "=/,push=x,vfs=y"] {
            assert!(parse_peer(text).unwrap_err().to_string().starts_with("wanted: "), "{text:?}");
        }
        let error = parse_peer("other=/no/such/file.so,vfs=v").unwrap_err();
        assert_eq!(error.to_string(), "no extension at /no/such/file.so");
    }
}
