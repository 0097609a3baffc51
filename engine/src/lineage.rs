//! Who owns an absent page: the commits of the store from a base back to
//! where its volume began, and the walk of `PROTOCOL.md`, "Page reads".

use std::sync::Arc;

use futures::future::BoxFuture;
use quire_proto::{
    Base, CommitHash, CommitHeader, Error, ErrorKind, Lsn, PageCount, PageIdx, PageSets, Result, VolumeName,
};

use crate::engine::Shared;

/// Where the content of an absent page comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// It is zeros.
    Zero,
    /// This commit owns it.
    Commit { volume: VolumeName, lsn: Lsn },
}

/// The commits that a snapshot of the store is made of.
pub(crate) struct Lineage {
    volume: VolumeName,
    /// From the commit that began the incarnation to the base.
    commits: Vec<Commit>,
    /// What the first of them was forked from.
    origin: Option<Arc<Lineage>>,
}

#[derive(Clone)]
struct Commit {
    header: Arc<CommitHeader>,
    sets: Arc<PageSets>,
}

impl Lineage {
    /// Reads the commits that make snapshot `lsn` of a volume.
    pub(crate) fn load(
        engine: Arc<Shared>,
        volume: VolumeName,
        lsn: Lsn,
        hash: CommitHash,
    ) -> BoxFuture<'static, Result<Arc<Lineage>>> {
        Box::pin(async move {
            let head = engine.commit(&volume, lsn).await?;
            if head.hash() != hash {
                return Err(replaced(&volume, lsn));
            }
            let headers = if head.header().kind.begins() {
                vec![head.header().clone()]
            } else {
                let stores = engine.stores().await?;
                let headers = stores.metastore.headers(&volume, Lsn::FIRST, head.header()).await?;
                let begin = headers.iter().rposition(|h| h.kind.begins());
                let begin = begin.ok_or_else(|| Error::corrupt(format!("volume {volume} has no beginning")))?;
                headers[begin..].to_vec()
            };
            let origin = match &headers[0].base {
                Base::Other { volume, lsn, hash } => {
                    Some(Lineage::load(engine.clone(), volume.clone(), *lsn, *hash).await?)
                }
                _ => None,
            };
            let mut lineage = Lineage { volume, commits: Vec::new(), origin };
            lineage.add(&engine, headers).await?;
            Ok(Arc::new(lineage))
        })
    }

    /// This lineage with newer commits on top.
    pub(crate) async fn extended(&self, engine: &Arc<Shared>, newer: Vec<CommitHeader>) -> Result<Arc<Lineage>> {
        let commits = self.commits.clone();
        let mut lineage = Lineage { volume: self.volume.clone(), commits, origin: self.origin.clone() };
        lineage.add(engine, newer).await?;
        Ok(Arc::new(lineage))
    }

    async fn add(&mut self, engine: &Arc<Shared>, headers: Vec<CommitHeader>) -> Result<()> {
        for header in headers {
            let sets = match &header.sets {
                Some(sets) => sets.clone(),
                None => engine.commit(&self.volume, header.lsn).await?.body().sets.clone(),
            };
            self.commits.push(Commit { header: Arc::new(header), sets: Arc::new(sets) });
        }
        Ok(())
    }

    /// The LSN and hash of the snapshot.
    pub(crate) fn head(&self) -> (Lsn, CommitHash) {
        let head = &self.commits[self.commits.len() - 1].header;
        (head.lsn, head.hash())
    }

    /// Who owns `page`.
    pub(crate) fn find(&self, page: PageIdx) -> Source {
        self.find_from(self.commits.len() - 1, page)
    }

    fn find_from(&self, mut at: usize, page: PageIdx) -> Source {
        loop {
            let Commit { header, sets } = &self.commits[at];
            if sets.owned().contains(page) {
                return Source::Commit { volume: self.volume.clone(), lsn: header.lsn };
            }
            if !header.min_count.contains(page) {
                return Source::Zero;
            }
            match (&header.base, &self.origin) {
                (Base::Nothing, _) => return Source::Zero,
                (Base::Other { .. }, Some(origin)) => return origin.find(page),
                (Base::Older { lsn, .. }, _) => match self.commits.iter().rposition(|c| c.header.lsn == *lsn) {
                    Some(older) => at = older,
                    None => return Source::Zero,
                },
                (Base::Previous | Base::Other { .. }, _) => match at.checked_sub(1) {
                    Some(previous) => at = previous,
                    None => return Source::Zero,
                },
            }
        }
    }

    /// The page count of the snapshot.
    pub(crate) fn page_count(&self) -> PageCount {
        self.commits[self.commits.len() - 1].header.page_count
    }

    /// The id of the commit that began the incarnation.
    pub(crate) fn incarnation(&self) -> String {
        self.commits[0].header.id.to_string()
    }
}

/// The store has another history than the one that the replica knows.
pub(crate) fn replaced(volume: &VolumeName, lsn: Lsn) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("volume {volume} in the store is another one now: its commit {lsn} is not the one this replica knows"),
    )
    .with_remedy("`quire reset NAME` goes over to it and keeps unpushed commits as NAME.dropped-N.")
}
