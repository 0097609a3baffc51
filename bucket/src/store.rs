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
            "s3" | "gs" | "az" => {
                let settings = settings_of(parsed.scheme(), variables)?;
                let options = client_options(variables);
                options.and_then(|options| cloud(&parsed, &settings, options)).map_err(|problem| wrong(&problem))
            }
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

/// `settings` are named as object_store names them.
fn cloud(url: &Url, settings: &[(String, String)], options: ClientOptions) -> Result<Store, String> {
    let bucket = url.host_str().filter(|host| !host.is_empty()).ok_or("it names no bucket")?;
    let path = object_store::path::Path::from_url_path(url.path()).map_err(|e| e.to_string())?;
    let prefix = if path.as_ref().is_empty() { String::new() } else { format!("{path}/") };
    if prefix.len() > MAX_PREFIX_BYTES {
        return Err(format!("the prefix is longer than {MAX_PREFIX_BYTES} bytes"));
    }
    let text = |e: object_store::Error| e.to_string();
    let store = match url.scheme() {
        "s3" => {
            check_not_directory_bucket(bucket)?;
            // One key, one plain DELETE: every S3 has it, bulk deletion not.
            let mut builder = AmazonS3Builder::new().with_disable_bulk_delete(true).with_client_options(options);
            for (name, value) in settings {
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
            for (name, value) in settings {
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
            for (name, value) in settings {
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
    let bundle = variables.iter().filter(|(name, _)| name == "AWS_CA_BUNDLE").map(|(_, path)| path.trim());
    if let Some(path) = bundle.into_iter().find(|path| !path.is_empty()) {
        let pem = std::fs::read(path).map_err(|e| format!("AWS_CA_BUNDLE {path:?} cannot be read: {e}"))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| format!("AWS_CA_BUNDLE {path:?}: {e}"))?;
        options = certificates.into_iter().fold(options, ClientOptions::with_root_certificate);
    }
    Ok(options)
}

/// Settings that hold the URL of a server. At one that is no URL object_store panics, once it makes a request.
const ENDPOINTS: [&str; 14] = [
    "aws_endpoint",
    "aws_endpoint_url",
    "aws_endpoint_url_s3",
    "aws_endpoint_url_sts",
    "aws_metadata_endpoint",
    "aws_container_credentials_full_uri",
    "google_base_url",
    "azure_endpoint",
    "azure_storage_endpoint",
    "azure_msi_endpoint",
    "azure_identity_endpoint",
    "azure_authority_host",
    "azure_storage_authority_host",
    "azure_fabric_token_service_url",
];

/// What the variables of a cloud set, by the names that object_store gives its
/// settings: the variables' own in lower case. A blank one sets nothing, and white
/// space around a value, such as the end of the line of a mounted secret, is none of it.
fn settings_of(scheme: &str, variables: &[(String, String)]) -> Result<Vec<(String, String)>> {
    let prefix = match scheme {
        "s3" => "aws_",
        "gs" => "google_",
        _ => "azure_",
    };
    let mut settings = Vec::new();
    for (variable, value) in variables {
        let (name, value) = (variable.to_ascii_lowercase(), value.trim());
        if !name.starts_with(prefix) || value.is_empty() {
            continue;
        }
        let value = match name.as_str() {
            // Azure's tools take a host alone, too.
            "azure_authority_host" | "azure_storage_authority_host" if !value.contains(['/', '@']) => {
                endpoint(variable, &format!("https://{value}"))?
            }
            endpoint_of if ENDPOINTS.contains(&endpoint_of) => endpoint(variable, value)?,
            _ => value.to_owned(),
        };
        settings.push((name, value));
    }
    Ok(settings)
}

/// The URL of an endpoint, so that a path can be put behind it.
fn endpoint(variable: &str, value: &str) -> Result<String> {
    match Url::parse(value) {
        // Such a URL always has a host.
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            let text = url.as_str();
            let text = if url.path() == "/" { text.trim_end_matches('/') } else { text };
            Ok(text.to_owned())
        }
        _ => Err(not_an_endpoint(variable, value)),
    }
}

fn not_an_endpoint(variable: &str, value: &str) -> Error {
    let wrong = |problem: &dyn Display| Error::invalid(format!("environment variable {variable}: {problem}"));
    // Anything else may hold a password, and is not repeated.
    let is_host = !value.contains(['/', '@']) && Url::parse(&format!("http://{value}")).is_ok();
    if is_host {
        wrong(&format_args!("{value:?} lacks the scheme of a URL"))
            .with_remedy(format!("Write http://{value}, or https://{value} where it speaks TLS."))
    } else {
        wrong(&"it is not the URL of a server")
            .with_remedy("Write it with its scheme and its host, such as http://127.0.0.1:9000.")
    }
}

#[cfg(test)]
mod tests {
    use object_store::aws::AmazonS3ConfigKey;
    use object_store::azure::AzureConfigKey;
    use object_store::gcp::GoogleConfigKey;

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
    #[test]
    fn an_endpoint_that_is_no_url_is_refused_by_its_variable_with_what_to_write() {
        for name in ENDPOINTS {
            let variable = name.to_ascii_uppercase();
            let url = match name {
                name if name.starts_with("aws_") => "s3://bucket",
                name if name.starts_with("google_") => "gs://bucket",
                _ => "az://bucket",
            };
            let hosts = [
                ("127.0.0.1:9000", "http://127.0.0.1:9000, or"),
                ("localhost:9000 ", "https://localhost:9000 where"),
                ("minio", "http://minio, or"),
            ];
            let others = [
                ("ftp://host", "such as http://127.0.0.1:9000"),
                ("http://", "such as http://127.0.0.1:9000"),
                ("http://:9000", "such as http://127.0.0.1:9000"),
                ("key:secret@host:9000", "such as http://127.0.0.1:9000"),
            ];
            let takes_hosts = name.ends_with("authority_host");
            for (value, to_write) in hosts.into_iter().filter(|_| !takes_hosts).chain(others) {
                let e = Store::open(url, &[(variable.clone(), value.to_owned())]).err().expect("refused");
                assert!(e.message().contains(&variable), "{variable}={value}: {e:?}");
                assert!(e.remedy().is_some_and(|remedy| remedy.contains(to_write)), "{variable}={value}: {e:?}");
                assert!(!format!("{e:?}").contains("secret"), "{e:?}");
            }
        }
    }

    #[test]
    fn who_signs_users_of_azure_in_may_be_a_host_alone() {
        let host = [("AZURE_AUTHORITY_HOST".to_owned(), "login.microsoftonline.com".to_owned())];
        let url = ("azure_authority_host".to_owned(), "https://login.microsoftonline.com".to_owned());
        assert_eq!(settings_of("az", &host).expect("it is taken"), [url]);
    }

    #[test]
    fn every_endpoint_is_a_setting_of_object_store() {
        for name in ENDPOINTS {
            let is_known = match name {
                name if name.starts_with("aws_") => name.parse::<AmazonS3ConfigKey>().is_ok(),
                name if name.starts_with("google_") => name.parse::<GoogleConfigKey>().is_ok(),
                _ => name.parse::<AzureConfigKey>().is_ok(),
            };
            assert!(is_known, "{name}");
        }
    }

    #[test]
    fn a_blank_variable_is_unset_and_white_space_around_a_value_is_none_of_it() {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let variables = [
            ("AWS_ENDPOINT", ""),
            ("AWS_ENDPOINT_URL_S3", " "),
            ("AWS_ENDPOINT_URL", " HTTP://127.0.0.1:9000/ \n"),
            ("AWS_METADATA_ENDPOINT", "http://[::1]/latest/"),
            ("AWS_REGION", "us-east-1\n"),
            ("GOOGLE_BASE_URL", "of another cloud"),
        ];
        let settings = [
            ("aws_endpoint_url", "http://127.0.0.1:9000"),
            ("aws_metadata_endpoint", "http://[::1]/latest/"),
            ("aws_region", "us-east-1"),
        ];
        assert_eq!(settings_of("s3", &variables.map(owned)).unwrap(), settings.map(owned));
    }
}
