//! Create-only writes and their three-way answer, and the one write that replaces. A PUT whose reply is lost is
//! neither won nor lost until the object at its key has been read back. Neither
//! is one that is refused: an earlier attempt, of this call or of one before
//! it, or of a proxy on the way, may have made the very object that refuses it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use quire_proto::{Error, ErrorKind, Result};

use crate::bucket::Inner;
use crate::counters::Request;
use crate::failure::{Failure, Hope};
use crate::folder::{self, on_disk};
use crate::store::Listing;
use crate::{Bucket, Key};

/// Who made an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object at the key has exactly these bytes. Two writers with equal
    /// bytes are both told so: put something random into what must be owned.
    Won,
    /// Another object was there first.
    Lost,
}

impl Bucket {
    /// Writes an object only if its key is free. An unknown outcome (reply
    /// lost, time out) is resolved by reading the key back and comparing all
    /// bytes; `Unavailable` means that it could not be settled in time. Making
    /// the same call again is always safe, and tells the outcome.
    pub async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created> {
        self.prove(key).await?;
        self.inner.create_unproven(key, bytes).await
    }

    /// An object that somebody has seen stays, also after a loss of power: in a folder its directory may not be synced yet.
    pub async fn make_durable(&self, key: &Key) -> Result<()> {
        self.inner.make_durable(key).await.map_err(|failure| failure.error)
    }

    /// Puts other bytes in the place of an object, at once and durably. Only for what means the same afterwards to
    /// whoever reads it: of two that do this the last one counts, and an attempt that seemed to fail may count later.
    pub async fn replace(&self, key: &Key, bytes: Bytes) -> Result<()> {
        self.prove(key).await?;
        let inner = &self.inner;
        let (what, path, len) = (&inner.what("replacing", key), &inner.path(key)?, bytes.len() as u64);
        let replaced = inner.limits.retry(&inner.tally, len, || {
            inner.tally.sent(Request::Put);
            inner.tally.bytes_out(len);
            let put = inner.store.objects.put_opts(path, PutPayload::from_bytes(bytes.clone()), PutOptions::default());
            inner.limits.attempt(what, len, async { put.await.map_err(|e| Failure::of(what, e)) })
        });
        replaced.await?;
        inner.pay(len).await;
        Ok(())
    }
}

impl Inner {
    pub(crate) async fn create_unproven(&self, key: &Key, bytes: Bytes) -> Result<Created> {
        let path = self.path(key)?;
        let in_doubt = AtomicBool::new(false);
        let len = bytes.len() as u64;
        let outcome = self.limits.retry(&self.tally, len, || self.create_once(key, &path, &bytes, &in_doubt)).await;
        self.pay(len).await;
        match outcome {
            // Whatever the last attempt ran into, an earlier one may have won.
            Err(e) if in_doubt.load(Relaxed) && e.kind() != ErrorKind::Unavailable => {
                Err(Error::unavailable(format!("the outcome of {} is unknown", self.what("writing", key)))
                    .with_remedy("Try the same write again: it settles the outcome.")
                    .with_source(e))
            }
            outcome => outcome,
        }
    }

    /// One attempt. `in_doubt` tells whether an earlier one may have succeeded.
    async fn create_once(
        &self,
        key: &Key,
        path: &Path,
        bytes: &Bytes,
        in_doubt: &AtomicBool,
    ) -> Result<Created, Failure> {
        let was_in_doubt = in_doubt.load(Relaxed);
        if was_in_doubt && let Some(outcome) = self.settle(key, path, bytes).await? {
            return Ok(outcome);
        }
        // Until the store's answer says otherwise.
        in_doubt.store(true, Relaxed);
        match self.put_if_absent(key, path, bytes).await {
            Ok(Put::Done) => Ok(Created::Won),
            Ok(Put::Refused) => match self.settle(key, path, bytes).await? {
                Some(outcome) => Ok(outcome),
                None => Err(Failure::busy(format!("{}: the object came and went", self.what("writing", key)))),
            },
            Err(failure) => {
                let not_seen = matches!(failure.hope, Hope::None | Hope::Unreached);
                in_doubt.store(was_in_doubt || !not_seen, Relaxed);
                Err(failure)
            }
        }
    }

    /// Reads the key back: whose object is there, if any.
    async fn settle(&self, key: &Key, path: &Path, bytes: &Bytes) -> Result<Option<Created>, Failure> {
        match self.get_once(key, path, None).await {
            Ok(object) => {
                self.make_durable(key).await?;
                Ok(Some(if object.bytes == bytes { Created::Won } else { Created::Lost }))
            }
            Err(failure) if failure.error.kind() == ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// In a folder, an object may be seen before its directory is synced; a
    /// loss of power must not take back what somebody has been told.
    async fn make_durable(&self, key: &Key) -> Result<(), Failure> {
        let Listing::Folder(root) = &self.store.listing else { return Ok(()) };
        let path = root.join(key.as_str());
        let what = self.what("syncing", key);
        on_disk(&what, move || folder::sync_parent(&path)).await.map_err(Failure::last)
    }

    /// One create-only PUT, whose outcome is what the store says.
    pub(crate) async fn put_if_absent(&self, key: &Key, path: &Path, bytes: &Bytes) -> Result<Put, Failure> {
        let what = &self.what("writing", key);
        let len = bytes.len() as u64;
        self.tally.sent(Request::Put);
        self.tally.bytes_out(len);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from_bytes(bytes.clone());
        let put = async {
            match self.store.objects.put_opts(path, payload, options).await {
                Ok(_) => Ok(Put::Done),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    Ok(Put::Refused)
                }
                Err(e) => Err(Failure::of(what, e)),
            }
        };
        self.limits.attempt(what, len, put).await
    }
}

/// What a store says to a create-only PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It wrote the object.
    Done,
    /// The key was taken.
    Refused,
}
