//! The care of volumes in a store, after the fact: [`collect`] lets go what
//! history need not keep, [`verify`] proves that what is kept can be read.
//!
//! This crate holds a [`Reader`](quire_history::Reader) of both stores, never
//! knows whether they are embedded or remote, and knows nothing of replicas.
//! Where a server is, [`Server`] has it do the work: nothing travels but reports.

pub mod collect;
pub mod compact;
mod server;
pub mod verify;
mod wire;

pub use server::Server;

use std::pin::pin;

use futures::TryStreamExt;
use quire_proto::{CommitHeader, CommitKind, Lsn, Metastore, Result, VolumeName, log_back};

/// Whether an LSN is a snapshot that can be read: a volume lived there, and not since that LSN only.
async fn shows_pages<M>(log: &M, volume: &VolumeName, header: &CommitHeader) -> Result<bool>
where
    M: Metastore + ?Sized,
{
    let mut headers = pin!(log_back(log, volume, header, Lsn::FIRST, 1));
    while let Some(at) = headers.try_next().await? {
        if at.kind != CommitKind::Void {
            // What has just begun needs no commit before it.
            return Ok(!at.kind.ends() && (at.page_count.get() > 0 || !at.kind.begins()));
        }
    }
    Ok(false)
}
