//! The contract suite over the embedded metastore and over a served one, on every kind of bucket.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use quire_bucket::{Bucket, Options as BucketOptions};
use quire_channel::{Connection, Limits};
use quire_metastore::contract::Subject;
use quire_metastore::{Embedded, Hub, Options, Remote, Service, metastore_contract};
use quire_proto::wire;
use quire_proto::wire::metastore_server::MetastoreServer;
use quire_testkit::S3Server;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

const POLL_INTERVAL: Duration = Duration::from_millis(5);

fn subject(bucket: Bucket, keep: impl Any + Send + Sync) -> Subject {
    let store = bucket.clone();
    let options = Options { poll_interval: POLL_INTERVAL, ..Options::default() };
    let connect = Box::new(move || Arc::new(Embedded::new(store.clone(), options)) as _);
    Subject { bucket, connect, keep: Box::new(keep) }
}

/// As [`subject`], with a server between for each client.
fn served(bucket: Bucket, keep: impl Any + Send + Sync) -> Subject {
    let embedded = subject(bucket, keep);
    let direct = embedded.connect;
    let connect = Box::new(move || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        listener.set_nonblocking(true).unwrap();
        let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).unwrap());
        let log = direct();
        let hub = Arc::new(Hub::new(log.clone(), POLL_INTERVAL));
        let service = MetastoreServer::new(Service::new(log, hub))
            .max_decoding_message_size(quire_channel::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(quire_channel::MAX_MESSAGE_BYTES);
        let service = InterceptedService::new(service, wire::everyone);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Arc::new(Remote::new(Connection::open(&url, None, Limits::default()).unwrap())) as _
    });
    Subject { bucket: embedded.bucket, connect, keep: embedded.keep }
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

mod served_memory {
    use super::*;

    async fn empty() -> Subject {
        served(Bucket::open("memory://").unwrap(), ())
    }

    metastore_contract!(empty());
}

mod served_folder {
    use super::*;

    async fn empty() -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        served(Bucket::open(&url).unwrap(), folder)
    }

    metastore_contract!(empty());
}

mod served_s3 {
    use super::*;

    async fn empty() -> Subject {
        let server = S3Server::shared();
        let options = BucketOptions { variables: Some(server.variables()), ..BucketOptions::default() };
        served(Bucket::open_with(&server.url("metastore"), options).unwrap(), ())
    }

    metastore_contract!(empty());
}
