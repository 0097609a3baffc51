//! The bucket: one store, opened. Reads and deletes; writing is `create.rs` and
//! `upload.rs`, listing is `list.rs`, ranges are `ranges.rs`.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use quire_proto::{Error, ErrorKind, Result};

use crate::budget::Budget;
use crate::counters::{Request, Tally};
use crate::failure::Failure;
use crate::folder::{on_disk, remove_unfinished};
use crate::hedge::Hedge;
use crate::marker::Marker;
use crate::store::{Listing, Store, Trust};
use crate::{Counters, Key, Limits};

/// How a bucket is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Time limits of requests.
    pub limits: Limits,
    /// The environment from which credentials and endpoints come; `None` is
    /// that of the process.
    pub variables: Option<Vec<(String, String)>>,
    /// This store has proved before that it honours create-only writes (see
    /// [`Bucket::is_proven`]): the first write is not preceded by a probe.
    pub assume_proven: bool,
    /// A file in which the folders that were found to be stores are listed from one process to the next. One of them that
    /// is empty now is `Unavailable` instead of a new store: its disk is not mounted.
    pub folders: Option<PathBuf>,
}

/// One store, opened. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) url: String,
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    pub(crate) tally: Tally,
    pub(crate) marker: Marker,
    budget: Option<Budget>,
    hedge: Hedge,
}

/// An object, or the part of it that was asked for.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub bytes: Bytes,
    /// How long the whole object is, in bytes.
    pub len_bytes: u64,
    /// When it was written, by the store's clock, in milliseconds since 1970.
    pub last_modified_ms: u64,
    /// Changes whenever the object does, if the store gives one.
    pub etag: Option<String>,
}

/// An object without its bytes.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Where it lies.
    pub key: Key,
    /// How long it is, in bytes.
    pub len_bytes: u64,
    /// When it was written, by the store's clock, in milliseconds since 1970.
    pub last_modified_ms: u64,
    /// Changes whenever the object does, if the store gives one.
    pub etag: Option<String>,
}

impl Bucket {
    /// Opens the store at `url`. Nothing is asked of it yet; a folder need not exist.
    pub fn open(url: &str) -> Result<Bucket> {
        Bucket::open_with(url, Options::default())
    }

    /// As [`open`](Self::open), with options.
    pub fn open_with(url: &str, options: Options) -> Result<Bucket> {
        let variables = match options.variables {
            Some(variables) => variables,
            None => {
                std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
            }
        };
        let store = Store::open(url, &variables)?;
        let inner = Inner {
            url: url.strip_suffix('/').filter(|url| !url.ends_with('/')).unwrap_or(url).to_owned(),
            store,
            limits: options.limits,
            tally: Tally::default(),
            marker: Marker::new(options.assume_proven, options.folders),
            budget: None,
            hedge: Hedge::default(),
        };
        Ok(Bucket { inner: Arc::new(inner) })
    }

    /// The same store, for a caller whose requests go through `layer`, which is
    /// given the store below it: one that watches them, slows them down or
    /// breaks them. Only the listings of a folder go past it. Counters begin anew.
    pub fn through(&self, limits: Limits, layer: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Bucket {
        let inner = Inner {
            url: self.inner.url.clone(),
            store: self.inner.store.through(layer),
            limits,
            tally: Tally::default(),
            marker: self.inner.marker.again(self.is_proven()),
            budget: None,
            hedge: Hedge::default(),
        };
        Bucket { inner: Arc::new(inner) }
    }

    /// The time that reading an object says of one which a listing dates to `listed_ms`: over HTTP, the whole second.
    pub fn read_time_ms(&self, listed_ms: u64) -> u64 {
        match self.inner.store.trust {
            Trust::Nothing => listed_ms - listed_ms % 1000,
            Trust::Memory | Trust::FileSystem => listed_ms,
        }
    }

    /// The same store, for work that takes no more than so many bytes of bodies a second, both ways together; without a
    /// number, as many as it takes. Counters begin anew.
    pub fn within(&self, bytes_per_second: Option<NonZeroU64>) -> Bucket {
        let inner = Inner {
            url: self.inner.url.clone(),
            store: self.inner.store.clone(),
            limits: self.inner.limits,
            tally: Tally::default(),
            marker: self.inner.marker.again(self.is_proven()),
            budget: bytes_per_second.map(Budget::new),
            hedge: Hedge::default(),
        };
        Bucket { inner: Arc::new(inner) }
    }

    /// The store's URL; it never holds credentials.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// What has been asked of the store so far.
    pub fn counters(&self) -> Counters {
        self.inner.tally.snapshot()
    }

    /// A whole object. `NotFound` only if the store said so.
    pub async fn get(&self, key: &Key) -> Result<Object> {
        self.get_within(key, None).await
    }

    /// The first `max_bytes` of an object, or all of it if it is shorter.
    pub async fn get_start(&self, key: &Key, max_bytes: u64) -> Result<Object> {
        self.get_within(key, Some(0..max_bytes)).await
    }

    /// What the store knows about an object, without its bytes.
    pub async fn head(&self, key: &Key) -> Result<Meta> {
        let inner = &self.inner;
        let what = inner.what("looking at", key);
        let (what, path) = (&what, &inner.path(key)?);
        let meta = inner.limits.retry(&inner.tally, 0, || async move {
            inner.tally.sent(Request::Head);
            let options = GetOptions { head: true, ..GetOptions::default() };
            let head = async { inner.store.objects.get_opts(path, options).await.map_err(|e| Failure::of(what, e)) };
            inner.limits.attempt(what, 0, head).await
        });
        meta.await.map(|result| meta_of(key.clone(), &result.meta))
    }

    /// Deletes an object. Deleting what is not there succeeds.
    pub async fn delete(&self, key: &Key) -> Result<()> {
        let inner = &self.inner;
        let what = inner.what("deleting", key);
        let (what, path) = (&what, &inner.path(key)?);
        let deleted = inner.limits.retry(&inner.tally, 0, || async move {
            inner.tally.sent(Request::Delete);
            let one = Box::pin(futures::stream::iter([Ok(path.clone())]));
            let delete = inner.store.objects.delete_stream(one).try_collect::<Vec<_>>();
            inner.limits.attempt(what, 0, async { delete.await.map_err(|e| Failure::of(what, e)) }).await
        });
        match deleted.await {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Removes what writes below `prefix` have left that were cut off before `before_ms`, by the store's clock, in
    /// milliseconds since 1970. Only a folder keeps such things among its objects: a cloud's bucket
    /// has a rule for them.
    pub async fn remove_unfinished(&self, prefix: &Key, before_ms: u64) -> Result<()> {
        let Listing::Folder(root) = &self.inner.store.listing else { return Ok(()) };
        let (root, folder) = (root.clone(), prefix.clone());
        let what = self.inner.what("removing what was not finished of", prefix);
        on_disk(&what, move || remove_unfinished(&root, &folder, before_ms)).await
    }

    /// Whether the store is there and may be read: for telling a user that a
    /// URL is wrong before work begins. A folder that does not exist is
    /// `NotFound`, although writing would create it.
    pub async fn check(&self) -> Result<()> {
        self.check_folder()?;
        if let Listing::Folder(root) = &self.inner.store.listing
            && !root.is_dir()
        {
            return Err(self.inner.missing_folder());
        }
        self.list_first(&Key::trusted("v".to_owned()), 1).await.map(|_| ())
    }

    async fn get_within(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let inner = &self.inner;
        let path = inner.path(key)?;
        let got = inner.limits.retry(&inner.tally, 0, || inner.get_once(key, &path, range.clone())).await;
        match &got {
            Ok(_) => self.found(),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.check_version().await?;
                if let Listing::Folder(root) = &inner.store.listing
                    && !root.is_dir()
                {
                    return Err(inner.missing_folder());
                }
            }
            Err(_) => {}
        }
        got
    }
}

impl Inner {
    /// One attempt to read an object or a range of it, which must come whole.
    pub(crate) async fn get_once(&self, key: &Key, path: &Path, range: Option<Range<u64>>) -> Result<Object, Failure> {
        let what = &self.what("reading", key);
        let ask = || async {
            self.tally.sent(Request::Get);
            let options = GetOptions { range: range.clone().map(GetRange::Bounded), ..GetOptions::default() };
            self.store.objects.get_opts(path, options).await.map_err(|e| Failure::of(what, e))
        };
        // What is here is late only if this machine is.
        let late = self.limits.hedge.filter(|_| self.store.trust == Trust::Nothing);
        let answer = self.hedge.first(late, || self.tally.hedged(), ask);
        let answer = match self.limits.attempt(what, 0, answer).await {
            Err(failure) if failure.is_unclear() => return Err(self.look_for_end(what, path, range, failure).await),
            answer => answer?,
        };
        let meta = meta_of(key.clone(), &answer.meta);
        let expected = answer.range.end - answer.range.start;
        let body = async { answer.bytes().await.map_err(|e| Failure::of(what, e)) };
        let bytes = self.limits.attempt(what, expected, body).await?;
        self.tally.bytes_in(bytes.len() as u64);
        if bytes.len() as u64 != expected {
            return Err(Failure::short(format!("{what}: {} of {expected} bytes came", bytes.len())));
        }
        self.pay(expected).await;
        let Meta { len_bytes, last_modified_ms, etag, .. } = meta;
        Ok(Object { bytes, len_bytes, last_modified_ms, etag })
    }

    /// A range that begins past an object's end is a refusal on HTTP, but on a
    /// folder and in memory an error that says nothing: then its length does.
    async fn look_for_end(&self, what: &str, path: &Path, range: Option<Range<u64>>, failure: Failure) -> Failure {
        let Some(range) = range else { return failure };
        self.tally.sent(Request::Head);
        let options = GetOptions { head: true, ..GetOptions::default() };
        let head = async { self.store.objects.get_opts(path, options).await.map_err(|e| Failure::of(what, e)) };
        match self.limits.attempt(what, 0, head).await {
            Ok(head) if head.meta.size <= range.start => {
                let len = head.meta.size;
                Failure::short(format!("{what}: the object has {len} bytes, {}.. were asked for", range.start))
            }
            _ => failure,
        }
    }

    /// Waits as long as bytes that went to or came from the store cost, if there is a budget.
    pub(crate) async fn pay(&self, bytes: u64) {
        if let Some(budget) = &self.budget {
            budget.pay(bytes).await;
        }
    }

    /// Names an operation in messages.
    pub(crate) fn what(&self, doing: &str, key: &Key) -> String {
        format!("{doing} {key} in {}", self.url)
    }

    pub(crate) fn path(&self, key: &Key) -> Result<Path> {
        // Not Path::from: it would encode the '%' of an encoded name once more.
        Path::parse(format!("{}{key}", self.store.prefix))
            .map_err(|e| Error::invalid(format!("object key {key} in {}: {e}", self.url)))
    }

    fn missing_folder(&self) -> Error {
        Error::not_found(format!("the folder of store {} does not exist", self.url))
            .with_remedy("Check the path; the first push to a new store creates its folder.")
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.url())
    }
}

pub(crate) fn meta_of(key: Key, meta: &ObjectMeta) -> Meta {
    let last_modified_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
    Meta { key, len_bytes: meta.size, last_modified_ms, etag: meta.e_tag.clone() }
}
