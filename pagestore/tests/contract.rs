//! The contract suite over the embedded pagestore, on every kind of bucket.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::any::Any;
use std::sync::Arc;

use quire_bucket::{Bucket, Options};
use quire_pagestore::contract::Subject;
use quire_pagestore::{Embedded, pagestore_contract};
use quire_testkit::S3Server;

fn subject(bucket: Bucket, keep: impl Any + Send + Sync) -> Subject {
    let store = Arc::new(Embedded::new(bucket.clone()));
    Subject { bucket, store, keep: Box::new(keep) }
}

mod memory {
    use super::*;

    async fn empty() -> Subject {
        subject(Bucket::open("memory://").unwrap(), ())
    }

    pagestore_contract!(empty());
}

mod folder {
    use super::*;

    async fn empty() -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        subject(Bucket::open(&url).unwrap(), folder)
    }

    pagestore_contract!(empty());
}

mod s3 {
    use super::*;

    async fn empty() -> Subject {
        let server = S3Server::shared();
        let options = Options { variables: Some(server.variables()), ..Options::default() };
        subject(Bucket::open_with(&server.url("pagestore"), options).unwrap(), ())
    }

    pagestore_contract!(empty());
}
