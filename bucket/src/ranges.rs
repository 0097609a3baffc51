//! Several ranges of one object: neighbours become one request, the others run
//! at the same time.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use quire_proto::{Error, ErrorKind, Result};

use crate::failure::Failure;
use crate::{Bucket, Key};

/// Ranges closer than this are fetched as one: at 100 Mbit/s the bytes between
/// them cost less than a sixth of a 30 ms round trip.
const GAP_BYTES: u64 = 64 * 1024;
/// Fetches do not grow beyond this by joining, so that long runs still overlap.
const JOINED_BYTES: u64 = 2 * 1024 * 1024;
const CONCURRENT_FETCHES: usize = 16;

impl Bucket {
    /// The bytes of several ranges of one object, in the order asked for. A
    /// range that the object does not have whole is `Corrupt`.
    pub async fn get_ranges(&self, key: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if let Some(range) = ranges.iter().find(|range| range.start >= range.end) {
            return Err(Error::invalid(format!("{key}: bytes {}..{} are no range", range.start, range.end)));
        }
        let fetches = join(ranges);
        let requests: Vec<_> = fetches.iter().map(|fetch| self.fetch(key, fetch.clone())).collect();
        let fetched: Vec<Bytes> = futures::stream::iter(requests).buffered(CONCURRENT_FETCHES).try_collect().await?;
        let cut = |range: &Range<u64>| {
            let i = fetches.partition_point(|fetch| fetch.start <= range.start) - 1;
            let start = (range.start - fetches[i].start) as usize;
            fetched[i].slice(start..start + (range.end - range.start) as usize)
        };
        Ok(ranges.iter().map(cut).collect())
    }

    async fn fetch(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let inner = &self.inner;
        let path = &inner.path(key)?;
        let (key, range) = (&key, &range);
        let attempt = || async move {
            let object = inner.get_once(key, path, Some(range.clone())).await?;
            if object.bytes.len() as u64 != range.end - range.start {
                let problem =
                    format!("the object has {} bytes, {}..{} were asked for", object.len_bytes, range.start, range.end);
                return Err(Failure::short(format!("{}: {problem}", inner.what("reading", key))));
            }
            Ok(object.bytes)
        };
        let fetched = inner.limits.retry(&inner.tally, range.end - range.start, attempt).await;
        if matches!(&fetched, Err(e) if e.kind() == ErrorKind::NotFound) {
            self.check_folder()?;
        }
        fetched
    }
}

/// The requests that cover `ranges`, ascending and apart from each other. Every
/// range lies within exactly one.
fn join(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            // What overlaps must be joined however long it gets, or a range
            // could not be cut from one fetch.
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            Some(last) if range.start - last.end < GAP_BYTES && range.end - last.start <= JOINED_BYTES => {
                last.end = range.end;
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_are_joined_and_strangers_are_not() {
        let joined = |ranges: &[Range<u64>]| join(ranges).iter().map(|r| (r.start, r.end)).collect::<Vec<_>>();
        assert_eq!(joined(&[10..20, 0..10, 25..30]), [(0, 30)]);
        assert_eq!(joined(&[0..10, 10 + GAP_BYTES..11 + GAP_BYTES]).len(), 2);
        assert_eq!(joined(&[0..JOINED_BYTES, JOINED_BYTES..JOINED_BYTES + 1]).len(), 2);
        assert_eq!(joined(&[0..JOINED_BYTES, 5..JOINED_BYTES + 1]), [(0, JOINED_BYTES + 1)]);
    }

    proptest! {
        #[test]
        fn every_range_lies_in_exactly_one_fetch(ranges in proptest::collection::vec((0u64..1 << 22, 1u64..1 << 18), 0..40)) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
            let fetches = join(&ranges);
            prop_assert!(fetches.is_sorted_by(|a, b| a.end <= b.start));
            for range in ranges {
                let i = fetches.partition_point(|fetch| fetch.start <= range.start) - 1;
                prop_assert!(range.end <= fetches[i].end);
            }
        }
    }
}
