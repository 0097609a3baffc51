//! The contract suite over the embedded metastore, on every kind of bucket.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use quire_bucket::{Bucket, Options as BucketOptions};
use quire_metastore::contract::Subject;
use quire_metastore::{Embedded, Options, metastore_contract};
use quire_testkit::S3Server;

fn subject(bucket: Bucket, keep: impl Any + Send + Sync) -> Subject {
    let store = bucket.clone();
    let options = Options { poll_interval: Duration::from_millis(5), ..Options::default() };
    let connect = Box::new(move || Arc::new(Embedded::new(store.clone(), options)) as _);
    Subject { bucket, connect, keep: Box::new(keep) }
}

mod memory {
    use super::*;

    async fn empty() -> Subject {
        subject(Bucket::open("memory://").unwrap(), ())
    }

    metastore_contract!(empty());
}

mod folder {
    use super::*;

    async fn empty() -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        subject(Bucket::open(&url).unwrap(), folder)
    }

    metastore_contract!(empty());
}

mod s3 {
    use super::*;

    async fn empty() -> Subject {
        let server = S3Server::shared();
        let options = BucketOptions { variables: Some(server.variables()), ..BucketOptions::default() };
        subject(Bucket::open_with(&server.url("metastore"), options).unwrap(), ())
    }

    metastore_contract!(empty());
}
