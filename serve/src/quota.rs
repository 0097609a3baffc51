//! How many bytes a volume may take.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytesize::ByteSize;
use futures::TryStreamExt;
use parking_lot::Mutex;
use quire_proto::{Allowance, Error, ErrorKind, PageUpkeep, Result, VolumeName};

/// What a volume takes is counted anew so often: others write to it too, and collections make room.
const RECOUNT: Duration = Duration::from_secs(600);
/// Whoever has no room left is not told so by an older count than this.
const FRESH: Duration = Duration::from_secs(10);
/// So many volumes are remembered.
const MOST_VOLUMES: usize = 100_000;

/// The same for each volume.
pub(crate) struct Quota {
    pages: Arc<dyn PageUpkeep>,
    most: NonZeroU64,
    used: Mutex<HashMap<VolumeName, Used>>,
}

/// What a volume took when it was counted, and what has been written to it here since.
#[derive(Clone, Copy)]
struct Used {
    bytes: u64,
    counted: Instant,
}

impl Quota {
    pub(crate) fn new(pages: Arc<dyn PageUpkeep>, most: NonZeroU64) -> Quota {
        Quota { pages, most, used: Mutex::default() }
    }

    /// Takes some of what is left, if a count that is no older than `age` says that there is enough.
    fn try_take(&self, volume: &VolumeName, bytes: u64, age: Duration) -> Option<bool> {
        let mut used = self.used.lock();
        let known = used.get_mut(volume).filter(|used| used.counted.elapsed() <= age)?;
        let fits = known.bytes.saturating_add(bytes) <= self.most.get();
        if fits {
            known.bytes += bytes;
        }
        Some(fits)
    }

    async fn count(&self, volume: &VolumeName) -> Result<()> {
        let counted = Instant::now();
        let mut bytes = 0;
        let mut segments = self.pages.segments(volume);
        while let Some((_, len_bytes)) = segments.try_next().await? {
            bytes += len_bytes;
        }
        let mut used = self.used.lock();
        if used.len() >= MOST_VOLUMES {
            used.retain(|_, used| used.counted.elapsed() <= RECOUNT);
        }
        if used.len() >= MOST_VOLUMES {
            used.clear();
        }
        used.insert(volume.clone(), Used { bytes, counted });
        Ok(())
    }
}

#[async_trait]
impl Allowance for Quota {
    async fn take(&self, volume: &VolumeName, bytes: u64) -> Result<()> {
        for age in [RECOUNT, FRESH] {
            match self.try_take(volume, bytes, age) {
                Some(true) => return Ok(()),
                // That is so.
                Some(false) if age == FRESH => break,
                Some(false) => {}
                None => self.count(volume).await?,
            }
        }
        if self.try_take(volume, bytes, FRESH) == Some(true) {
            return Ok(());
        }
        Err(self.full(volume))
    }

    fn give_back(&self, volume: &VolumeName, bytes: u64) {
        if let Some(used) = self.used.lock().get_mut(volume) {
            used.bytes = used.bytes.saturating_sub(bytes);
        }
    }
}

impl Quota {
    fn full(&self, volume: &VolumeName) -> Error {
        let most = ByteSize(self.most.get()).display().iec();
        Error::new(ErrorKind::Full, format!("volume {volume} would take more than {most} in the store"))
            .with_remedy(format!(
                "Keep less of its history (`quire keep {volume} 30d`, `quire gc {volume}`), or ask the operator for more (--volume-quota)."
            ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use futures::StreamExt;
    use quire_bucket::Bucket;
    use quire_proto::{Lsn, PageIdx, PageSet, PageSize, Pagestore, encode_frame};

    use super::*;

    async fn write(pages: &quire_pagestore::Embedded, volume: &VolumeName, bytes: usize) {
        let mut content = vec![0; bytes];
        rand::fill(&mut content[..]);
        let frame = |(n, content): (usize, &[u8])| {
            encode_frame(&PageSet::from_iter([PageIdx::try_new(n as u32 + 1).unwrap()]), PageSize::DEFAULT, content)
        };
        let frames: Vec<_> = content.chunks(4096).enumerate().map(frame).collect();
        pages.write(volume, Lsn::FIRST, futures::stream::iter(frames).boxed()).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_volume_takes_already_counts_and_what_does_not_fit_takes_nothing() {
        let bucket = Bucket::open("memory://").unwrap();
        let pages = quire_pagestore::Embedded::new(bucket.clone());
        let (volume, other) = (VolumeName::parse("app").unwrap(), VolumeName::parse("other").unwrap());
        write(&pages, &volume, 40 << 12).await;
        let quota = Quota::new(Arc::new(pages.clone()), NonZeroU64::new(300_000).unwrap());
        quota.take(&other, 300_000).await.unwrap();
        quota.take(&volume, 100_000).await.unwrap();
        for _ in 0..2 {
            let full = quota.take(&volume, 100_000).await.unwrap_err();
            assert_eq!(full.kind(), ErrorKind::Full);
            assert!(full.message().contains("293.0 KiB"), "{full}");
        }
        quota.take(&volume, 20_000).await.unwrap();

        // Old counts are not believed when there is no room, and room that was made is found.
        let age = |seconds| {
            let old = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
            quota.used.lock().get_mut(&volume).unwrap().counted = old;
        };
        age(11);
        quota.take(&volume, 100_000).await.unwrap();
        // Others have written to it: that is noticed where there seems to be no room, and after a while anyway.
        write(&pages, &volume, 40 << 12).await;
        age(11);
        quota.take(&volume, 1).await.unwrap();
        age(RECOUNT.as_secs() + 1);
        assert_eq!(quota.take(&volume, 1).await.unwrap_err().kind(), ErrorKind::Full);
        quota.give_back(&volume, 50_000);
        quota.take(&volume, 1).await.unwrap();
        let requests = bucket.counters().requests();
        quota.take(&other, 0).await.unwrap();
        assert_eq!(bucket.counters().requests(), requests);
    }
}
