//! The contract suite over the embedded pagestore and over a served one, on every kind of bucket.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::any::Any;
use std::sync::Arc;

use quire_bucket::{Bucket, Options};
use quire_channel::{Connection, Limits};
use quire_pagestore::contract::Subject;
use quire_pagestore::{Embedded, Remote, Service, pagestore_contract};
use quire_proto::wire;
use quire_proto::wire::pagestore_server::PagestoreServer;
use quire_testkit::S3Server;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

fn subject(bucket: Bucket, keep: impl Any + Send + Sync) -> Subject {
    let store = Arc::new(Embedded::new(bucket.clone()));
    Subject { bucket, store, keep: Box::new(keep) }
}

/// As [`subject`], with a server between.
fn served(bucket: Bucket, keep: impl Any + Send + Sync) -> Subject {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    listener.set_nonblocking(true).unwrap();
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).unwrap());
    let service = PagestoreServer::new(Service::new(Arc::new(Embedded::new(bucket.clone()))))
        .max_decoding_message_size(quire_channel::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(quire_channel::MAX_MESSAGE_BYTES);
    let service = InterceptedService::new(service, wire::everyone);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    let store = Arc::new(Remote::new(Connection::open(&url, None, Limits::default()).unwrap()));
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

mod served_memory {
    use super::*;

    async fn empty() -> Subject {
        served(Bucket::open("memory://").unwrap(), ())
    }

    pagestore_contract!(empty());
}

mod served_folder {
    use super::*;

    async fn empty() -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        served(Bucket::open(&url).unwrap(), folder)
    }

    pagestore_contract!(empty());
}

mod served_s3 {
    use super::*;

    async fn empty() -> Subject {
        let server = S3Server::shared();
        let options = Options { variables: Some(server.variables()), ..Options::default() };
        served(Bucket::open_with(&server.url("pagestore"), options).unwrap(), ())
    }

    pagestore_contract!(empty());
}
