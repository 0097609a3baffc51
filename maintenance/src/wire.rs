//! Reports as messages, and back. What comes over the wire is checked here.

use quire_proto::wire::{self, damage, hold, required};
use quire_proto::{Error, Lsn, PageCount, PageSet, Result, Retention, Span, VolumeName};

use crate::collect::{Amount, Collected, Hold, Holder};
use crate::compact::{Compacted, Extent};
use crate::verify::{Damage, Depth, Object, Report};

impl From<Amount> for wire::Amount {
    fn from(Amount { objects, bytes }: Amount) -> Self {
        wire::Amount { objects, bytes }
    }
}

fn amount(amount: Option<wire::Amount>) -> Amount {
    // All fields that are 0 are left out.
    amount.map_or(Amount::default(), |wire::Amount { objects, bytes }| Amount { objects, bytes })
}

impl From<Extent> for wire::Amount {
    fn from(Extent { objects, bytes }: Extent) -> Self {
        wire::Amount { objects, bytes }
    }
}

fn extent(amount: Option<wire::Amount>) -> Extent {
    amount.map_or(Extent::default(), |wire::Amount { objects, bytes }| Extent { objects, bytes })
}

impl From<&Compacted> for wire::CompactReport {
    fn from(compacted: &Compacted) -> Self {
        wire::CompactReport {
            lsn: compacted.lsn.get(),
            generation: compacted.generation,
            steps: compacted.steps,
            lost: compacted.lost,
            pages: compacted.pages,
            bytes_written: compacted.bytes_written,
            before: Some(compacted.before.into()),
            after: Some(compacted.after.into()),
        }
    }
}

impl TryFrom<wire::CompactReport> for Compacted {
    type Error = Error;
    fn try_from(report: wire::CompactReport) -> Result<Self> {
        Ok(Compacted {
            lsn: Lsn::try_new(report.lsn)?,
            generation: report.generation,
            steps: report.steps,
            lost: report.lost,
            pages: report.pages,
            bytes_written: report.bytes_written,
            before: extent(report.before),
            after: extent(report.after),
        })
    }
}

impl From<&Hold> for wire::Hold {
    fn from(held: &Hold) -> Self {
        let place = |volume: &VolumeName, lsn: Lsn| wire::CommitPlace { volume: volume.to_string(), lsn: lsn.get() };
        let holder = match &held.holder {
            Holder::Commit(volume, lsn) => hold::Holder::Commit(place(volume, *lsn)),
            Holder::OpenCommit(volume, lsn) => hold::Holder::OpenCommit(place(volume, *lsn)),
            Holder::OpenCheckpoint(place) => hold::Holder::OpenCheckpoint((*place).into()),
            Holder::Replica(author) => hold::Holder::Replica(author.clone()),
            Holder::Reader(author) => hold::Holder::Reader(author.clone()),
            Holder::Unknown(problem) => hold::Holder::Unknown(problem.clone()),
        };
        wire::Hold { lsn: held.lsn.get(), holder: Some(holder) }
    }
}

impl TryFrom<wire::Hold> for Hold {
    type Error = Error;
    fn try_from(held: wire::Hold) -> Result<Self> {
        let place =
            |place: wire::CommitPlace| Ok::<_, Error>((VolumeName::parse(&place.volume)?, Lsn::try_new(place.lsn)?));
        let holder = match required(held.holder, "holder")? {
            hold::Holder::Commit(at) => place(at).map(|(volume, lsn)| Holder::Commit(volume, lsn))?,
            hold::Holder::OpenCommit(at) => place(at).map(|(volume, lsn)| Holder::OpenCommit(volume, lsn))?,
            hold::Holder::OpenCheckpoint(place) => Holder::OpenCheckpoint(place.try_into()?),
            hold::Holder::Replica(author) => Holder::Replica(author),
            hold::Holder::Reader(author) => Holder::Reader(author),
            hold::Holder::Unknown(problem) => Holder::Unknown(problem),
        };
        Ok(Hold { lsn: Lsn::try_new(held.lsn)?, holder })
    }
}

impl From<&Collected> for wire::CollectReport {
    fn from(collected: &Collected) -> Self {
        wire::CollectReport {
            no_volume: false,
            keeps: collected.retention.span.to_string(),
            named: collected.retention.named.iter().map(|lsn| lsn.get()).collect(),
            head_lsn: collected.head.get(),
            horizon_lsn: collected.horizon.get(),
            kept: collected.kept.iter().map(|lsn| lsn.get()).collect(),
            holds: collected.holds.iter().map(Into::into).collect(),
            blocked_lsn: collected.blocked.map_or(0, Lsn::get),
            waits_ms: collected.waits_ms,
            commits: Some(collected.commits.into()),
            checkpoints: Some(collected.checkpoints.into()),
            segments: Some(collected.segments.into()),
            segments_left: Some(collected.segments_left.into()),
            commits_left: collected.commits_left,
        }
    }
}

/// What a collection did, or that nothing was ever stored under that name.
pub(crate) fn collected(report: wire::CollectReport) -> Result<Option<Collected>> {
    if report.no_volume {
        return Ok(None);
    }
    let lsns = |lsns: Vec<u64>| lsns.into_iter().map(Lsn::try_new).collect::<Result<_>>();
    Ok(Some(Collected {
        retention: Retention { span: Span::parse(&report.keeps)?, named: lsns(report.named)? },
        head: Lsn::try_new(report.head_lsn)?,
        horizon: Lsn::try_new(report.horizon_lsn)?,
        kept: lsns(report.kept)?,
        holds: report.holds.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
        blocked: Lsn::new(report.blocked_lsn),
        waits_ms: report.waits_ms,
        commits: amount(report.commits),
        checkpoints: amount(report.checkpoints),
        segments: amount(report.segments),
        segments_left: amount(report.segments_left),
        commits_left: report.commits_left,
    }))
}

fn stretches(pages: &PageSet) -> Vec<wire::Stretch> {
    pages.ranges().map(|(first, last)| wire::Stretch { first: first.into(), last: last.into() }).collect()
}

fn pages(stretches: Vec<wire::Stretch>) -> Result<PageSet> {
    let mut pages = PageSet::new();
    for wire::Stretch { first, last } in stretches {
        match (u32::try_from(first), u32::try_from(last)) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => pages.insert_range(first, last),
            _ => return Err(Error::invalid(format!("{first} to {last} are no pages"))),
        }
    }
    Ok(pages)
}

impl From<&Damage> for wire::Damage {
    fn from(found: &Damage) -> Self {
        let object = match found.object {
            Object::Commit { lsn } => damage::Object::Commit(lsn.get()),
            Object::Segment { id, lsn } => {
                damage::Object::Segment(wire::SegmentPlace { id: Some(id.into()), lsn: lsn.get() })
            }
            Object::Checkpoint(place) => damage::Object::Checkpoint(place.into()),
        };
        wire::Damage {
            volume: found.volume.to_string(),
            object: Some(object),
            problem: found.problem.clone(),
            pages: stretches(&found.pages),
        }
    }
}

impl TryFrom<wire::Damage> for Damage {
    type Error = Error;
    fn try_from(found: wire::Damage) -> Result<Self> {
        let object = match required(found.object, "object")? {
            damage::Object::Commit(lsn) => Object::Commit { lsn: Lsn::try_new(lsn)? },
            damage::Object::Segment(wire::SegmentPlace { id, lsn }) => {
                Object::Segment { id: required(id, "id")?.try_into()?, lsn: Lsn::try_new(lsn)? }
            }
            damage::Object::Checkpoint(place) => Object::Checkpoint(place.try_into()?),
        };
        let volume = VolumeName::parse(&found.volume)?;
        Ok(Damage { volume, object, problem: found.problem, pages: pages(found.pages)? })
    }
}

impl From<&Report> for wire::VerifyReport {
    fn from(report: &Report) -> Self {
        let touched = report.touched.iter();
        wire::VerifyReport {
            volume: report.volume.to_string(),
            deep: report.depth == Depth::Deep,
            lsn: report.lsn.get(),
            page_count: report.page_count.get(),
            commits: report.commits,
            collected: report.collected,
            segments: report.segments,
            checkpoints: report.checkpoints,
            bytes: report.bytes,
            damage: report.damage.iter().map(Into::into).collect(),
            more_damage: report.more_damage,
            touched: touched.map(|(first, last)| wire::Stretch { first: first.get(), last: last.get() }).collect(),
            all_lost: report.lost.is_none(),
            lost: report.lost.as_ref().map(stretches).unwrap_or_default(),
            readable_lsn: report.readable.map_or(0, Lsn::get),
            restorable: report.restorable,
        }
    }
}

impl TryFrom<wire::VerifyReport> for Report {
    type Error = Error;
    fn try_from(report: wire::VerifyReport) -> Result<Self> {
        let touched =
            report.touched.iter().map(|stretch| Ok((Lsn::try_new(stretch.first)?, Lsn::try_new(stretch.last)?)));
        Ok(Report {
            volume: VolumeName::parse(&report.volume)?,
            depth: if report.deep { Depth::Deep } else { Depth::Plain },
            lsn: Lsn::try_new(report.lsn)?,
            page_count: PageCount::new(report.page_count),
            commits: report.commits,
            collected: report.collected,
            segments: report.segments,
            checkpoints: report.checkpoints,
            bytes: report.bytes,
            damage: report.damage.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            more_damage: report.more_damage,
            touched: touched.collect::<Result<_>>()?,
            lost: if report.all_lost { None } else { Some(pages(report.lost)?) },
            readable: Lsn::new(report.readable_lsn),
            restorable: report.restorable,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use quire_proto::{CheckpointPlace, SegmentId};
    use ulid::Ulid;

    use super::*;

    fn lsn(n: u64) -> Lsn {
        Lsn::try_new(n).unwrap()
    }

    fn name(text: &str) -> VolumeName {
        VolumeName::parse(text).unwrap()
    }

    #[test]
    fn reports_come_back_as_they_went() {
        let amount = |n: u64| Amount { objects: n, bytes: 100 * n };
        let place = CheckpointPlace { lsn: lsn(9), generation: 2 };
        let holders = [
            Holder::Commit(name("a"), lsn(1)),
            Holder::OpenCommit(name("b/c"), lsn(2)),
            Holder::OpenCheckpoint(place),
            Holder::Replica("ada".into()),
            Holder::Reader("bob".into()),
            Holder::Unknown("torn".into()),
        ];
        let there = Collected {
            retention: Retention { span: Span::Last(3), named: [lsn(4)].into() },
            head: lsn(20),
            horizon: lsn(17),
            kept: [lsn(4), lsn(5)].into(),
            holds: holders.into_iter().map(|holder| Hold { lsn: lsn(5), holder }).collect(),
            blocked: Some(lsn(2)),
            waits_ms: Some(0),
            commits: amount(1),
            checkpoints: amount(2),
            segments: amount(3),
            segments_left: amount(0),
            commits_left: 8,
        };
        let back = collected((&there).into()).unwrap().unwrap();
        assert_eq!(format!("{back:?}"), format!("{there:?}"));
        assert!(collected(wire::CollectReport { no_volume: true, ..Default::default() }).unwrap().is_none());

        let there = Compacted {
            lsn: lsn(7),
            generation: 3,
            steps: 2,
            lost: 1,
            pages: 9,
            bytes_written: 1 << 40,
            before: Extent { objects: 5, bytes: 6 },
            after: Extent::default(),
        };
        assert_eq!(Compacted::try_from(wire::CompactReport::from(&there)).unwrap(), there);

        let pages = |ranges: &[(u32, u32)]| {
            let mut pages = PageSet::new();
            ranges.iter().for_each(|(first, last)| pages.insert_range(*first, *last));
            pages
        };
        let id = SegmentId { target: lsn(3), generation: 1, ulid: Ulid::from_bytes([7; 16]) };
        let objects = [Object::Commit { lsn: lsn(3) }, Object::Segment { id, lsn: lsn(3) }, Object::Checkpoint(place)];
        for lost in [None, Some(PageSet::new()), Some(pages(&[(1, 1), (7, u32::MAX)]))] {
            let damage = |object| Damage { volume: name("a"), object, problem: "torn".into(), pages: pages(&[(2, 5)]) };
            let there = Report {
                volume: name("a"),
                depth: Depth::Deep,
                lsn: lsn(12),
                page_count: PageCount::new(77),
                commits: 12,
                collected: 1,
                segments: 2,
                checkpoints: 3,
                bytes: 4,
                damage: objects.into_iter().map(damage).collect(),
                more_damage: 5,
                touched: vec![(lsn(3), lsn(4))],
                lost,
                readable: Some(lsn(2)),
                restorable: true,
            };
            let back = Report::try_from(wire::VerifyReport::from(&there)).unwrap();
            assert_eq!(format!("{back:?}"), format!("{there:?}"));
        }
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let stretch = |first, last| wire::Stretch { first, last };
        for wrong in [stretch(0, 1), stretch(2, 1), stretch(1, 1 << 32)] {
            assert!(pages(vec![wrong]).is_err(), "{wrong:?}");
        }
        assert!(Hold::try_from(wire::Hold { lsn: 1, holder: None }).is_err());
        assert!(Compacted::try_from(wire::CompactReport::default()).is_err());
        assert!(Report::try_from(wire::VerifyReport::default()).is_err());
        assert!(collected(wire::CollectReport::default()).is_err());
    }
}
