//! What a bucket has been asked so far. Every attempt counts, a retried
//! request as often as it was sent.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Requests by kind and bytes of bodies, since the bucket was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads of whole objects and of ranges.
    pub get: u64,
    /// Writes, among them each part and each step of a multipart upload.
    pub put: u64,
    /// Pages of listings.
    pub list: u64,
    /// Questions about an object without its bytes.
    pub head: u64,
    /// Deletions.
    pub delete: u64,
    /// How many of the requests were repetitions.
    pub retries: u64,
    /// How many of the reads were asked for once more, as the answer was late.
    pub hedged: u64,
    /// Bytes of bodies received.
    pub bytes_in: u64,
    /// Bytes of bodies sent.
    pub bytes_out: u64,
}

impl Counters {
    /// Requests of all kinds.
    pub fn requests(&self) -> u64 {
        self.get + self.put + self.list + self.head + self.delete
    }
}

impl std::ops::Add for Counters {
    type Output = Counters;

    fn add(self, other: Counters) -> Counters {
        Counters {
            get: self.get + other.get,
            put: self.put + other.put,
            list: self.list + other.list,
            head: self.head + other.head,
            delete: self.delete + other.delete,
            retries: self.retries + other.retries,
            hedged: self.hedged + other.hedged,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
        }
    }
}

/// The kinds of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    Get,
    Put,
    List,
    Head,
    Delete,
}

/// The running counts behind [`Counters`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    get: AtomicU64,
    put: AtomicU64,
    list: AtomicU64,
    head: AtomicU64,
    delete: AtomicU64,
    retries: AtomicU64,
    hedged: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Tally {
    pub(crate) fn sent(&self, request: Request) {
        let counter = match request {
            Request::Get => &self.get,
            Request::Put => &self.put,
            Request::List => &self.list,
            Request::Head => &self.head,
            Request::Delete => &self.delete,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn hedged(&self) {
        self.hedged.fetch_add(1, Relaxed);
    }

    pub(crate) fn bytes_in(&self, n: u64) {
        self.bytes_in.fetch_add(n, Relaxed);
    }

    pub(crate) fn bytes_out(&self, n: u64) {
        self.bytes_out.fetch_add(n, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            get: self.get.load(Relaxed),
            put: self.put.load(Relaxed),
            list: self.list.load(Relaxed),
            head: self.head.load(Relaxed),
            delete: self.delete.load(Relaxed),
            retries: self.retries.load(Relaxed),
            hedged: self.hedged.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}
