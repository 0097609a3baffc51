//! Reading a segment from its first byte to its last.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use quire_bucket::{Bucket, Key};
use quire_proto::{Error, Result};

use crate::embedded::{locate, wrong_length};

/// Long enough that a request costs little beside its bytes.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
/// One piece travels while the one before it is looked at.
const PIECES_AT_ONCE: usize = 2;

pub(crate) fn scan(bucket: Bucket, key: Key, len_bytes: u64) -> BoxStream<'static, Result<Bytes>> {
    let pieces = async move {
        let found = bucket.head(&key).await.map_err(|e| locate(e, &key))?.len_bytes;
        let end = (found != len_bytes).then(|| Err(wrong_length(&key, found, len_bytes)));
        let ranges = pieces(found.min(len_bytes));
        let fetched = stream::iter(ranges).map(move |range| fetch(bucket.clone(), key.clone(), range));
        Ok::<_, Error>(fetched.buffered(PIECES_AT_ONCE).chain(stream::iter(end)))
    };
    stream::once(pieces).try_flatten().boxed()
}

async fn fetch(bucket: Bucket, key: Key, range: Range<u64>) -> Result<Bytes> {
    let mut found = bucket.get_ranges(&key, &[range]).await.map_err(|e| locate(e, &key))?;
    Ok(found.pop().unwrap_or_default())
}

fn pieces(len_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    (0..len_bytes.div_ceil(PIECE_BYTES)).map(move |n| n * PIECE_BYTES..len_bytes.min((n + 1) * PIECE_BYTES))
}
