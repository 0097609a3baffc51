//! What a name stands for, given its newest commit. Voids say nothing, and the
//! fork of a rename says something only if the rename took place.

use std::pin::pin;

use futures::TryStreamExt;
use quire_bucket::{Bucket, Created, keys};
use quire_proto::{
    Base, CommitHeader, CommitKind, Condition, Error, ErrorKind, Lsn, Result, SealedCommit, VolumeName, VolumeState,
    headers_back,
};

use crate::{headers, log};

/// What a commit does to its name.
enum Effect {
    /// A volume lives there from now on, or goes on living.
    Lives,
    /// The volume there ended.
    Ends,
    /// Nothing: what was before, is.
    None,
}

/// What `volume` stands for while `head` is its newest commit.
pub(crate) async fn of(bucket: &Bucket, volume: &VolumeName, head: SealedCommit) -> Result<VolumeState> {
    let head = Box::new(head);
    let piece =
        |low, last: CommitHeader| async move { headers::log(bucket, volume, low, &last).await.map(|log| log.headers) };
    // Most names need no step back, and nearly all others one.
    let mut headers = pin!(headers_back(head.header().clone(), Lsn::FIRST, 1, piece));
    while let Some(header) = headers.try_next().await? {
        match effect(bucket, volume, &header).await? {
            Effect::Lives => return Ok(VolumeState::Live(head)),
            Effect::Ends => {
                let by = match header.lsn == head.lsn() {
                    true => head.clone(),
                    false => Box::new(log::read(bucket, volume, header.lsn).await?),
                };
                return Ok(VolumeState::Ended { by, head });
            }
            Effect::None => {}
        }
    }
    Ok(VolumeState::Free { next: head.lsn().next(), head: Some(head) })
}

async fn effect(bucket: &Bucket, volume: &VolumeName, header: &CommitHeader) -> Result<Effect> {
    Ok(match (header.kind, &header.condition) {
        (CommitKind::Void, _) => Effect::None,
        (CommitKind::Deleted | CommitKind::Moved, _) => Effect::Ends,
        (CommitKind::Fork, Some(condition)) => match decide(bucket, volume, header, condition).await? {
            true => Effect::Lives,
            false => Effect::None,
        },
        (CommitKind::Create | CommitKind::Write | CommitKind::Restore | CommitKind::Fork, _) => Effect::Lives,
    })
}

/// Whether the rename that reserved `fork` took place: the commit after the
/// fork's base is the only judge. If there is none yet, whoever reserved the
/// name did not come back; the rename is finished for him with the commit that
/// the reservation carries, which either wins or finds the verdict.
async fn decide(bucket: &Bucket, new: &VolumeName, fork: &CommitHeader, condition: &Condition) -> Result<bool> {
    let Base::Other { volume: old, lsn, hash } = &fork.base else {
        return Err(Error::corrupt(format!("LSN {} of volume {new} is a fork of nothing", fork.lsn)));
    };
    let judge = lsn.next();
    match log::read_front(bucket, old, judge).await {
        Ok(verdict) => return Ok(verdict.header.id == condition.moved_id),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let forged = |problem: &str| {
        Error::corrupt(format!("LSN {} of volume {new} reserves a rename of {old}, and {problem}", fork.lsn))
            .with_remedy("Quire did not write it so: find out who did, and move the object out of the volume's log.")
    };
    let moved = SealedCommit::decode(condition.moved_object.clone())
        .map_err(|e| forged("the commit that it carries is damaged").with_source(e))?;
    let said = moved.header();
    let named = said.kind == CommitKind::Moved && said.moved_to.as_ref() == Some(new) && said.id == condition.moved_id;
    if !named || said.lsn != judge || said.parent != Some(*hash) {
        return Err(forged("carries another commit than it names"));
    }
    if log::read_front(bucket, old, *lsn).await?.header.hash() != *hash {
        return Err(forged("its base is not the commit that has that LSN"));
    }
    match bucket.create(&keys::commit(old, judge), moved.object().clone()).await? {
        Created::Won => Ok(true),
        Created::Lost => Ok(log::read_front(bucket, old, judge).await?.header.id == condition.moved_id),
    }
}
