//! The URL of a store.

use std::fmt;
use std::path::Path;

use quire_proto::{Error, Result};
use url::{Position, Url};

use crate::Key;
use crate::source::{Source, wrong};

/// What stands behind a store's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A folder, memory, or a bucket: no server is needed.
    Embedded,
    /// A Quire server.
    Server,
}

/// The checked URL of a store. It holds no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    url: String,
    kind: StoreKind,
}

impl StoreUrl {
    /// Checks a URL; `source` is named in the error.
    pub fn parse(text: &str, source: &Source) -> Result<StoreUrl> {
        let wrong = |problem: String| wrong(Key::Store, source, problem);
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(_) if looks_like_a_path(text) => {
                return Err(wrong(format!("{text:?} is a path, not a URL"))
                    .with_remedy("Write a folder as file:///its/absolute/path."));
            }
            // It may hold a secret, of which only the owner knows where it ends.
            Err(problem) if text.contains('@') => return Err(wrong(format!("it is not a URL: {problem}"))),
            Err(problem) => return Err(wrong(format!("{text:?} is not a URL: {problem}"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("the URL holds credentials".into()).with_remedy(
                "Leave them out of the URL: the usual variables of each cloud, such as AWS_ACCESS_KEY_ID, hold them.",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong(format!("{text:?} has a '?' or a '#', which no store's URL has")));
        }
        let host = url.host_str().unwrap_or_default();
        let kind = match url.scheme() {
            "file" if !host.is_empty() => {
                return Err(wrong(format!("{text:?} names the host {host:?}; a folder's URL has three slashes"))
                    .with_remedy("Write a folder as file:///its/absolute/path."));
            }
            "file" if url.path() == "/" => {
                return Err(wrong(format!("{text:?} is the root folder, which can not be a store")));
            }
            "file" => StoreKind::Embedded,
            "memory" if host.is_empty() && matches!(url.path(), "" | "/") => StoreKind::Embedded,
            "memory" => return Err(wrong(format!("{text:?} has a path; the store in memory is just memory://"))),
            "s3" | "gs" | "az" if host.is_empty() => return Err(wrong(format!("{text:?} names no bucket"))),
            "s3" | "gs" | "az" => StoreKind::Embedded,
            // What stands behind the port would be missed in silence.
            "http" | "https" if url.path() != "/" => {
                return Err(wrong(format!("{text:?} has the path {:?}; a server has none", url.path()))
                    .with_remedy(format!("Leave it out: {}", &url[..Position::BeforePath])));
            }
            "http" | "https" => StoreKind::Server,
            scheme => return Err(wrong(format!("{text:?}: no kind of store is called {scheme:?}"))),
        };
        Ok(StoreUrl { url: text.to_owned(), kind })
    }

    /// The store in a folder of this machine.
    pub(crate) fn of_folder(folder: &Path) -> Result<StoreUrl> {
        let url = Url::from_file_path(folder)
            .map_err(|()| Error::invalid(format!("{} is not an absolute path", folder.display())))?;
        Ok(StoreUrl { url: url.into(), kind: StoreKind::Embedded })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// What stands behind it.
    pub fn kind(&self) -> StoreKind {
        self.kind
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

fn looks_like_a_path(text: &str) -> bool {
    text.starts_with(['/', '.', '~']) || Path::new(text).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_store_has_its_scheme() {
        for (url, kind) in [
            ("file:///srv/quire", StoreKind::Embedded),
            ("file:///srv/with%20space", StoreKind::Embedded),
            ("memory://", StoreKind::Embedded),
            ("s3://bucket", StoreKind::Embedded),
            ("s3://bucket/some/prefix", StoreKind::Embedded),
            ("gs://bucket/prefix", StoreKind::Embedded),
            ("az://container/prefix", StoreKind::Embedded),
            ("http://127.0.0.1:7480", StoreKind::Server),
            ("http://127.0.0.1:7480/", StoreKind::Server),
            ("https://quire.example", StoreKind::Server),
        ] {
            let store = StoreUrl::parse(url, &Source::Default).unwrap();
            assert_eq!((store.as_str(), store.kind()), (url, kind));
        }
    }

    #[test]
    fn a_wrong_url_is_named_with_its_problem_and_a_remedy() {
        for (url, problem) in [
            ("", "not a URL"),
            ("/srv/quire", "is a path"),
            ("./store", "is a path"),
            ("file://srv/quire", "three slashes"),
            ("file:///", "root folder"),
            ("memory://here", "just memory://"),
            ("s3://", "names no bucket"),
            ("s3:///prefix", "names no bucket"),
            ("ftp://host/x", "no kind of store is called \"ftp\""),
            ("s3://key:secret@bucket/x", "holds credentials"),
            ("s3://key:se/secret@bucket/x", "not a URL: invalid port"),
            ("s3://bucket/x?region=y", "'?'"),
            ("http://host:7480/some/prefix", "has the path \"/some/prefix\""),
        ] {
            let error = StoreUrl::parse(url, &Source::Flag("--store")).unwrap_err();
            assert!(error.message().starts_with("setting store (flag --store): "), "{url}: {error}");
            assert!(error.message().contains(problem), "{url}: {error}");
            assert!(error.remedy().is_some(), "{url}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn a_server_is_named_without_its_path() {
        let error = StoreUrl::parse("https://host:7480/some/prefix", &Source::Default).unwrap_err();
        assert_eq!(error.remedy(), Some("Leave it out: https://host:7480"));
    }

    #[test]
    fn a_folder_with_odd_letters_becomes_a_url() {
        let store = StoreUrl::of_folder(Path::new("/srv/my data")).unwrap();
        assert_eq!(store.as_str(), "file:///srv/my%20data");
    }
}
