//! Commits to append, built by hand.

use quire_proto::{
    Base, Body, CommitHeader, CommitId, CommitKind, Condition, FrameIndex, Lsn, PageCount, PageIdx, PageSet, PageSets,
    PageSize, SealedCommit, VolumeName, encode_frame,
};

/// The draft of a commit after `before`, with a random id.
pub fn draft(before: Option<&SealedCommit>, kind: CommitKind) -> CommitHeader {
    let at = before.map_or(Lsn::FIRST, |before| before.lsn().next());
    let mut header = CommitHeader::draft(at, kind, CommitId::random().unwrap(), PageSize::DEFAULT);
    header.parent = before.map(SealedCommit::hash);
    header.page_count = before.map_or(PageCount::ZERO, |before| before.header().page_count);
    header.min_count = header.page_count;
    header
}

/// A commit after `before` that touches no page.
pub fn commit(before: Option<&SealedCommit>, kind: CommitKind) -> SealedCommit {
    SealedCommit::seal(draft(before, kind), Body::default()).unwrap()
}

/// A commit after `before` that writes page 1, inline.
pub fn write(before: &SealedCommit) -> SealedCommit {
    let content = [before.lsn().next().get() as u8; 4096];
    write_page(before, &content)
}

/// As [`write`], with bytes that do not compress.
pub fn write_noise(before: &SealedCommit) -> SealedCommit {
    let mut content = [0; 4096];
    blake3::Hasher::new().update(before.hash().as_bytes()).finalize_xof().fill(&mut content);
    write_page(before, &content)
}

fn write_page(before: &SealedCommit, content: &[u8; 4096]) -> SealedCommit {
    let mut header = draft(Some(before), CommitKind::Write);
    header.page_count = header.page_count.max(PageCount::new(1));
    let pages = PageSet::from_iter([PageIdx::FIRST]);
    let frame = encode_frame(&pages, PageSize::DEFAULT, content).unwrap();
    let index = FrameIndex::inline([(frame.first, frame.page_count, frame.bytes.len() as u32)]);
    SealedCommit::seal(header, Body { sets: PageSets::same(pages), index, inline: frame.bytes }).unwrap()
}

/// The commit that moves the volume whose head is `head` to another name.
pub fn moved(head: &SealedCommit, new: &VolumeName) -> SealedCommit {
    let mut header = draft(Some(head), CommitKind::Moved);
    header.moved_to = Some(new.clone());
    SealedCommit::seal(header, Body::default()).unwrap()
}

/// The commit after `before` under the new name that reserves it for `moved`,
/// which is to follow `head` under the old one.
pub fn reservation(
    before: Option<&SealedCommit>,
    old: &VolumeName,
    head: &SealedCommit,
    moved: &SealedCommit,
) -> SealedCommit {
    let mut header = draft(before, CommitKind::Fork);
    header.base = Base::Other { volume: old.clone(), lsn: head.lsn(), hash: head.hash() };
    header.page_count = head.header().page_count;
    header.min_count = head.header().page_count;
    header.condition = Some(Condition { moved_id: moved.header().id, moved_object: moved.object().clone() });
    let sets = PageSets { changed: PageSet::first(header.page_count), owned: Some(PageSet::new()) };
    SealedCommit::seal(header, Body { sets, ..Body::default() }).unwrap()
}
