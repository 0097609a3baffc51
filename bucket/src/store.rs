//! From a URL to a store: which of object_store's implementations serves it,
//! with which credentials, below which prefix.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::{Certificate, ClientOptions, ObjectStore};
use quire_proto::{Error, Result};
use url::Url;

use crate::answers::{Connector, no_retries};

/// Longest prefix inside a bucket, in bytes.
const MAX_PREFIX_BYTES: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// One store, as far as object_store knows it.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) listing: Listing,
    /// Multipart uploads by part number, which can be retried part by part;
    /// a folder has none and gets one file, written in order.
    pub(crate) parts: Option<Arc<dyn MultipartStore>>,
    /// Put in front of every key; empty, or ends with `/`.
    pub(crate) prefix: String,
    /// What is known about it without asking.
    pub(crate) trust: Trust,
}

/// How keys are listed in order.
#[derive(Clone)]
pub(crate) enum Listing {
    /// The store sorts and cuts pages itself.
    Pages(Arc<dyn PaginatedListStore>),
    /// A folder: directory by directory.
    Folder(PathBuf),
    /// Everything at once, sorted here: memory.
    Whole,
}

/// Whether a store must prove that it honours create-only writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It is this process's own memory.
    Memory,
    /// A file system: it refuses to link over a file, but may fold cases.
    FileSystem,
    /// Whatever answers at some address.
    Nothing,
}

impl Store {
    /// `variables` are the environment, from which credentials come.
    pub(crate) fn open(url: &str, variables: &[(String, String)]) -> Result<Store> {
        let wrong = |problem: &dyn Display| Error::invalid(format!("store {url:?}: {problem}")).with_remedy(FORMS);
        let parsed = Url::parse(url).map_err(|e| wrong(&e))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(Error::invalid(format!("the URL of store {:?} holds credentials", without_userinfo(&parsed)))
                .with_remedy("Give them in the cloud's environment variables, such as AWS_ACCESS_KEY_ID."));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(wrong(&"it has a '?' or '#' part"));
        }
        match parsed.scheme() {
            "file" => folder(&parsed).map_err(|problem| wrong(&problem)),
            "memory" => Ok(Store::memory()),
            "s3" | "gs" | "az" => cloud(&parsed, variables).map_err(|problem| wrong(&problem)),
            "http" | "https" => Err(wrong(&"it names a Quire server, not a bucket or a folder")),
            scheme => Err(wrong(&format_args!("{scheme:?} is no known kind of store"))),
        }
    }

    /// The same store with `layer` over it. What object_store offers besides
    /// [`ObjectStore`] would go past the layer, so it is done without.
    pub(crate) fn through(&self, layer: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Store {
        Store {
            objects: layer(self.objects.clone()),
            listing: match &self.listing {
                Listing::Folder(root) => Listing::Folder(root.clone()),
                Listing::Pages(_) | Listing::Whole => Listing::Whole,
            },
            parts: None,
            prefix: self.prefix.clone(),
            trust: self.trust,
        }
    }

    fn memory() -> Store {
        let memory = Arc::new(InMemory::new());
        Store {
            objects: memory.clone(),
            listing: Listing::Whole,
            parts: Some(memory),
            prefix: String::new(),
            trust: Trust::Memory,
        }
    }
}

const FORMS: &str = "Use file:///path, memory://, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix; \
                     credentials and endpoints come from the cloud's environment variables.";

fn without_userinfo(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// A folder is addressed from the root of the file system, so that it need not
/// exist before the first write creates it.
fn folder(url: &Url) -> Result<Store, String> {
    let root = url.to_file_path().map_err(|()| "a folder is written file:///absolute/path".to_owned())?;
    let path = root.to_str().ok_or("the path is not UTF-8")?;
    let prefix = path.trim_matches('/');
    object_store::path::Path::parse(prefix).map_err(|e| e.to_string())?;
    Ok(Store {
        objects: Arc::new(LocalFileSystem::new().with_fsync(true)),
        parts: None,
        prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
        listing: Listing::Folder(root),
        trust: Trust::FileSystem,
    })
}

fn cloud(url: &Url, variables: &[(String, String)]) -> Result<Store, String> {
    let bucket = url.host_str().filter(|host| !host.is_empty()).ok_or("it names no bucket")?;
    let path = object_store::path::Path::from_url_path(url.path()).map_err(|e| e.to_string())?;
    let prefix = if path.as_ref().is_empty() { String::new() } else { format!("{path}/") };
    if prefix.len() > MAX_PREFIX_BYTES {
        return Err(format!("the prefix is longer than {MAX_PREFIX_BYTES} bytes"));
    }
    let text = |e: object_store::Error| e.to_string();
    let options = client_options(variables)?;
    let store = match url.scheme() {
        "s3" => {
            check_not_directory_bucket(bucket)?;
            // One key, one plain DELETE: every S3 has it, bulk deletion not.
            let mut builder = AmazonS3Builder::new().with_disable_bulk_delete(true).with_client_options(options);
            for (name, value) in variables_of("aws_", variables) {
                if let Ok(key) = name.parse() {
                    builder = builder.with_config(key, value);
                }
                // As for other programs, an http:// endpoint is permission enough.
                if name.starts_with("aws_endpoint") && value.starts_with("http://") {
                    builder = builder.with_allow_http(true);
                }
            }
            let builder = builder.with_bucket_name(bucket).with_retry(no_retries());
            let s3 = builder.with_http_connector(Connector::default()).build().map_err(text)?;
            in_cloud(Arc::new(s3), prefix)
        }
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::new().with_client_options(options);
            for (name, value) in variables_of("google_", variables) {
                if let Ok(key) = name.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            let builder = builder.with_bucket_name(bucket).with_retry(no_retries());
            let gcs = builder.with_http_connector(Connector::default()).build().map_err(text)?;
            in_cloud(Arc::new(gcs), prefix)
        }
        _ => {
            let mut builder = MicrosoftAzureBuilder::new().with_client_options(options);
            for (name, value) in variables_of("azure_", variables) {
                if let Ok(key) = name.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            let builder = builder.with_container_name(bucket).with_retry(no_retries());
            let azure = builder.with_http_connector(Connector::default()).build().map_err(text)?;
            in_cloud(Arc::new(azure), prefix)
        }
    };
    Ok(store)
}

fn in_cloud<S: ObjectStore + PaginatedListStore + MultipartStore>(store: Arc<S>, prefix: String) -> Store {
    Store {
        objects: store.clone(),
        listing: Listing::Pages(store.clone()),
        parts: Some(store),
        prefix,
        trust: Trust::Nothing,
    }
}

/// S3 lists directory buckets in no order, so that the newest commit would not
/// come first.
fn check_not_directory_bucket(bucket: &str) -> Result<(), String> {
    if bucket.ends_with("--x-s3") {
        return Err("it is an S3 directory bucket, which lists keys in no order; use a general purpose bucket".into());
    }
    Ok(())
}

/// Limits of time are kept above, per attempt and by the size of what moves;
/// here only connecting is bounded.
fn client_options(variables: &[(String, String)]) -> Result<ClientOptions, String> {
    let mut options = ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT_TIMEOUT);
    if let Some((_, path)) = variables.iter().find(|(name, path)| name == "AWS_CA_BUNDLE" && !path.is_empty()) {
        let pem = std::fs::read(path).map_err(|e| format!("AWS_CA_BUNDLE {path:?} cannot be read: {e}"))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| format!("AWS_CA_BUNDLE {path:?}: {e}"))?;
        options = certificates.into_iter().fold(options, ClientOptions::with_root_certificate);
    }
    Ok(options)
}

/// The variables that begin with `prefix`, in lower case, as object_store
/// spells its settings.
fn variables_of<'a>(
    prefix: &'a str,
    variables: &'a [(String, String)],
) -> impl Iterator<Item = (String, &'a str)> + 'a {
    let lower = variables.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()));
    lower.filter(move |(name, _)| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str) -> String {
        match Store::open(url, &[]) {
            Ok(_) => panic!("{url} was accepted"),
            Err(e) => {
                assert!(e.remedy().is_some(), "{url}: {e} lacks a remedy");
                e.to_string()
            }
        }
    }

    #[test]
    fn wrong_urls_are_refused_with_their_problem() {
        for (url, expected) in [
            ("", "relative URL"),
            ("/tmp/x", "relative URL"),
            ("ftp://host/x", "\"ftp\""),
            ("http://localhost:7480", "Quire server"),
            ("file://host/share", "file:///"),
            ("s3:///prefix", "no bucket"),
            ("s3://key:secret@bucket", "credentials"),
            ("s3://bucket?region=x", "'?'"),
            ("s3://name--usw2-az1--x-s3/p", "directory bucket"),
            (&format!("s3://bucket/{}", "p".repeat(256)), "256"),
        ] {
            let said = problem(url);
            assert!(said.contains(expected), "{url:?}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn an_unreadable_bundle_of_certificates_is_named() {
        let variables = [("AWS_CA_BUNDLE".to_owned(), "/nonexistent/ca.pem".to_owned())];
        let e = Store::open("s3://bucket", &variables).err().expect("refused");
        assert!(e.to_string().contains("/nonexistent/ca.pem"), "{e}");
    }
}
