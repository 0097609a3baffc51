//! Writing an object that is too large to hold in memory: parts go up at the
//! same time, a bounded number of them.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload};
use quire_proto::{Error, ErrorKind, Result};
use tokio::task::JoinSet;

use crate::bucket::Inner;
use crate::counters::Request;
use crate::create::Created;
use crate::failure::Failure;
use crate::{Bucket, Key};

/// Size of each part but the last, in bytes: some stores want them equal, and
/// S3 at least 5 MiB and at most 10,000 of them.
pub const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts on their way at the same time. With the one being filled, an upload
/// holds at most 32 MiB.
const PARTS_IN_FLIGHT: usize = 3;

/// An object being written. Nothing is visible before
/// [`finish`](Self::finish); dropping it aborts.
pub struct Upload {
    inner: Arc<Inner>,
    key: Key,
    path: Path,
    /// The part being filled.
    part: Vec<Bytes>,
    part_len: usize,
    len: u64,
    target: Option<Target>,
    in_flight: JoinSet<Result<(usize, Option<PartId>)>>,
    /// By part number, those that have arrived.
    done: Vec<Option<PartId>>,
}

/// Where the parts go.
enum Target {
    /// Each to its number, in any order.
    Numbered { store: Arc<dyn MultipartStore>, id: String },
    /// A folder's unfinished file. The lock is never contended: it makes the
    /// upload `Sync`, and with that the futures that borrow it `Send`.
    File(Mutex<Box<dyn MultipartUpload>>),
}

impl Bucket {
    /// Begins an object with a fresh random name: unlike [`create`](Self::create)
    /// this does not decide between two writers of one key.
    pub async fn upload(&self, key: &Key) -> Result<Upload> {
        self.prove(key).await?;
        Ok(Upload {
            inner: self.inner.clone(),
            key: key.clone(),
            path: self.inner.path(key)?,
            part: Vec::new(),
            part_len: 0,
            len: 0,
            target: None,
            in_flight: JoinSet::new(),
            done: Vec::new(),
        })
    }
}

impl Upload {
    /// Appends bytes; waits while too many parts are on their way.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.len += bytes.len() as u64;
        while self.part_len + bytes.len() > PART_BYTES {
            self.fill(bytes.split_to(PART_BYTES - self.part_len));
            self.send_part().await?;
        }
        self.fill(bytes);
        Ok(())
    }

    /// Returns the object's length in bytes, once it is durable and complete.
    pub async fn finish(mut self) -> Result<u64> {
        if self.target.is_none() {
            return self.finish_small().await;
        }
        self.send_part().await?;
        while !self.in_flight.is_empty() {
            self.receive_part().await?;
        }
        if let Some(Target::Numbered { store, id }) = &self.target {
            self.complete(store.as_ref(), id).await?;
        }
        // From here on there is nothing to give up.
        if let Some(Target::File(file)) = self.target.take() {
            let what = self.what();
            let mut file = file.into_inner().unwrap_or_else(PoisonError::into_inner);
            file.complete().await.map_err(|e| Failure::of(&what, e).error)?;
        }
        Ok(self.len)
    }

    async fn finish_small(&mut self) -> Result<u64> {
        let bytes = match self.part.as_slice() {
            [one] => one.clone(),
            many => many.concat().into(),
        };
        match self.inner.create_unproven(&self.key, bytes).await? {
            Created::Won => Ok(self.len),
            Created::Lost => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{}: another object has this name, which was to be unique", self.what()),
            )
            .with_remedy("Try again: a fresh name is chosen.")),
        }
    }

    fn what(&self) -> String {
        self.inner.what("uploading", &self.key)
    }

    fn fill(&mut self, bytes: Bytes) {
        self.part_len += bytes.len();
        self.part.push(bytes);
    }

    async fn send_part(&mut self) -> Result<()> {
        if self.target.is_none() {
            self.target = Some(self.begin().await?);
        }
        if self.in_flight.len() >= PARTS_IN_FLIGHT {
            self.receive_part().await?;
        }
        let number = self.done.len();
        self.done.push(None);
        let payload: PutPayload = std::mem::take(&mut self.part).into_iter().collect();
        let len = std::mem::take(&mut self.part_len) as u64;
        let (inner, path, what) = (self.inner.clone(), self.path.clone(), self.what());
        inner.pay(len).await;
        match &mut self.target {
            Some(Target::Numbered { store, id }) => {
                let (store, id) = (store.clone(), id.clone());
                self.in_flight.spawn(async move {
                    let put = inner.limits.retry(&inner.tally, len, || {
                        inner.tally.sent(Request::Put);
                        inner.tally.bytes_out(len);
                        let put = store.put_part(&path, &id, number, payload.clone());
                        inner.limits.attempt(&what, len, async { put.await.map_err(|e| Failure::of(&what, e)) })
                    });
                    Ok((number, Some(put.await?)))
                });
            }
            Some(Target::File(file)) => {
                inner.tally.sent(Request::Put);
                inner.tally.bytes_out(len);
                let put = file.get_mut().unwrap_or_else(PoisonError::into_inner).put_part(payload);
                self.in_flight.spawn(async move {
                    put.await.map_err(|e| Failure::of(&what, e).error)?;
                    Ok((number, None))
                });
            }
            None => {}
        }
        Ok(())
    }

    async fn begin(&self) -> Result<Target> {
        let (inner, path, what) = (&self.inner, &self.path, &self.what());
        inner.tally.sent(Request::Put);
        let Some(store) = inner.store.parts.clone() else {
            let file = inner.store.objects.put_multipart_opts(path, PutMultipartOptions::default()).await;
            return Ok(Target::File(Mutex::new(file.map_err(|e| Failure::of(what, e).error)?)));
        };
        let id = inner.limits.retry(&inner.tally, 0, || {
            let create = store.create_multipart(path);
            inner.limits.attempt(what, 0, async { create.await.map_err(|e| Failure::of(what, e)) })
        });
        let id = id.await?;
        Ok(Target::Numbered { store, id })
    }

    async fn receive_part(&mut self) -> Result<()> {
        match self.in_flight.join_next().await {
            None => Ok(()),
            Some(Ok(arrived)) => {
                let (number, id) = arrived?;
                self.done[number] = id;
                Ok(())
            }
            Some(Err(e)) => Err(Error::unavailable(format!("{}: a part was cancelled", self.what())).with_source(e)),
        }
    }

    /// Makes the object out of its parts. A lost reply is settled by looking:
    /// the name is ours alone, so an object of this length is this one.
    async fn complete(&self, store: &dyn MultipartStore, id: &String) -> Result<()> {
        let (inner, what) = (&self.inner, &self.what());
        let parts: Vec<PartId> = self.done.iter().flatten().cloned().collect();
        let tried = &AtomicBool::new(false);
        let attempt = || async {
            if tried.swap(true, Relaxed) && self.is_complete().await? {
                return Ok(());
            }
            inner.tally.sent(Request::Put);
            let complete = store.complete_multipart(&self.path, id, parts.clone());
            let complete = async { complete.await.map(|_| ()).map_err(|e| Failure::of(what, e)) };
            match inner.limits.attempt(what, 0, complete).await {
                // The upload is unknown: it is complete already, or lost.
                Err(failure) if failure.error.kind() == ErrorKind::NotFound => match self.is_complete().await? {
                    true => Ok(()),
                    false => Err(Failure::last(
                        Error::unavailable(format!("{what}: the store dropped the upload"))
                            .with_remedy("Try again: the object is then uploaded anew."),
                    )),
                },
                outcome => outcome,
            }
        };
        inner.limits.retry(&inner.tally, 0, attempt).await
    }

    async fn is_complete(&self) -> Result<bool, Failure> {
        match (Bucket { inner: self.inner.clone() }).head(&self.key).await {
            Ok(meta) => Ok(meta.len_bytes == self.len),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Failure::last(e)),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // An unfinished file removes itself; parts must be dropped by the store.
        let Some(Target::Numbered { store, id }) = self.target.take() else { return };
        let path = self.path.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // What fails here is left to the bucket's rule for unfinished uploads.
            runtime.spawn(async move { store.abort_multipart(&path, &id).await });
        }
    }
}
