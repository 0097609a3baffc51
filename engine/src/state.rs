//! What a replica knows besides its pages: its base in the store, what it has
//! not pushed, a push in flight. It changes by applying records of the log and
//! in no other way, so that replaying the log gives the same state again.

use quire_proto::{
    Attributes, CommitHash, CommitHeader, CommitId, Error, LocalTip, Lsn, PageCount, PageSet, PageSize, Reader, Result,
    VolumeName, Writer,
};

/// The snapshot of the store that a replica stands on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BaseState {
    /// Whose snapshot it is: the replica's own volume, or, before the first push of a fork, the one it was forked from.
    pub(crate) volume: VolumeName,
    pub(crate) lsn: Lsn,
    pub(crate) hash: CommitHash,
    pub(crate) page_count: PageCount,
}

impl BaseState {
    /// The snapshot that a commit of `volume` makes.
    pub(crate) fn of(volume: &VolumeName, commit: &CommitHeader) -> BaseState {
        BaseState { volume: volume.clone(), lsn: commit.lsn, hash: commit.hash(), page_count: commit.page_count }
    }
}

/// Local commits that are not in the store, taken together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pending {
    /// How many.
    pub(crate) commits: u64,
    /// The pages they changed.
    pub(crate) changed: PageSet,
    /// The smallest page count since the base, the base's own included.
    pub(crate) min_count: PageCount,
}

/// A push between its decision and its outcome. While it is open, only these
/// bytes are sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Intent {
    /// The LSN that it wants to make.
    pub(crate) target: Lsn,
    /// The exact commit object.
    pub(crate) object: Vec<u8>,
    /// What it carries: goes back to the unpushed if the push loses.
    pub(crate) carries: Pending,
    /// The local commit that counts only if this push wins (`sync=commit`).
    pub(crate) tentative: Option<u64>,
}

/// A replica's state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    /// The volume's name in the store.
    pub(crate) remote: VolumeName,
    pub(crate) base: Option<BaseState>,
    /// The id of the commit that began the volume, once it is known; none without a base in its own log.
    pub(crate) volume_id: Option<CommitId>,
    /// The size of all pages; none before the first commit.
    pub(crate) page_size: Option<PageSize>,
    pub(crate) page_count: PageCount,
    pub(crate) attributes: Attributes,
    pub(crate) pending: Pending,
    pub(crate) intent: Option<Intent>,
    /// The chained digest of all local commits.
    pub(crate) tip: LocalTip,
    /// The highest sequence number that any transaction has had.
    pub(crate) seq: u64,
    /// The head of the store that cannot be pulled because both sides moved on.
    pub(crate) diverged: Option<Lsn>,
}

/// What one local transaction did, as its commit record says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CommitRecord {
    pub(crate) page_size: PageSize,
    pub(crate) page_count: PageCount,
    /// The smallest page count during the transaction.
    pub(crate) low_count: PageCount,
    pub(crate) changed: PageSet,
    pub(crate) attributes: Attributes,
    pub(crate) tip: LocalTip,
    /// Up to which offset of its own file the log was durable when it was written.
    pub(crate) synced: u32,
    /// Counts only once the group with this id is decided.
    pub(crate) group: Option<[u8; 16]>,
}

impl State {
    /// A replica of `remote` that knows nothing yet.
    pub(crate) fn new(remote: VolumeName) -> State {
        State {
            remote,
            base: None,
            volume_id: None,
            page_size: None,
            page_count: PageCount::ZERO,
            attributes: Attributes::new(),
            pending: Pending::default(),
            intent: None,
            tip: LocalTip::ZERO,
            seq: 0,
            diverged: None,
        }
    }

    /// A replica of `remote` as it is at one of its commits.
    pub(crate) fn at(remote: VolumeName, commit: &CommitHeader) -> State {
        let mut state = State::new(remote);
        state.stand_on(commit);
        state.page_size = Some(commit.page_size);
        state.page_count = commit.page_count;
        state.attributes = commit.attributes.clone();
        state
    }

    /// It stands on a commit of its own log, which may be the one that began the volume.
    pub(crate) fn stand_on(&mut self, commit: &CommitHeader) {
        self.base = Some(BaseState::of(&self.remote, commit));
        if commit.kind.begins() {
            self.volume_id = Some(commit.id);
        }
    }

    /// The commit of its own log that it stands on: none before the first push, nor before that of a fork.
    pub(crate) fn own_base(&self) -> Option<&BaseState> {
        self.base.as_ref().filter(|base| base.volume == self.remote)
    }

    /// The snapshot under work that no push is going to put on top of it: both sides moved on, or it is a fork that
    /// was not pushed yet.
    pub(crate) fn stands_apart_on(&self) -> Option<&BaseState> {
        let apart = self.is_ahead() && (self.diverged.is_some() || self.own_base().is_none());
        self.base.as_ref().filter(|_| apart)
    }

    /// The LSN that it stands on.
    pub(crate) fn base_lsn(&self) -> Option<Lsn> {
        self.own_base().map(|base| base.lsn)
    }

    /// It becomes another volume with the same content, whose first push is a fork of the base. `tip` is like no other,
    /// so that only copies of this very fork are taken for it.
    pub(crate) fn fork(&mut self, remote: VolumeName, tip: LocalTip) {
        self.intent_lost();
        if self.pending.commits == 0 {
            self.pending = Pending { min_count: self.page_count, ..Pending::default() };
        }
        self.pending.commits += 1;
        (self.remote, self.volume_id, self.tip, self.diverged) = (remote, None, tip, None);
    }

    /// Whether anything here is not known to be in the store.
    pub(crate) fn is_ahead(&self) -> bool {
        self.pending.commits > 0 || self.intent.is_some()
    }

    /// How many local commits are not known to be in the store.
    pub(crate) fn unpushed(&self) -> u64 {
        self.pending.commits + self.intent.as_ref().map_or(0, |i| i.carries.commits)
    }

    /// Whether a commit of the store carries exactly what is here, up to the last local commit: another copy of
    /// this data directory pushed it.
    pub(crate) fn is_tip(&self, commit: &CommitHeader) -> bool {
        self.is_ahead() && commit.local_tip == self.tip && self.tip != LocalTip::ZERO
    }

    /// What is unpushed is in the store as `commit`.
    pub(crate) fn found_in_store(&mut self, commit: &CommitHeader) {
        self.pending = Pending::default();
        self.intent_won(commit);
    }

    /// A local commit with this sequence number becomes visible.
    pub(crate) fn apply_commit(&mut self, commit: &CommitRecord) {
        self.pending.add(commit, self.page_size, self.page_count);
        self.page_size = Some(commit.page_size);
        self.page_count = commit.page_count;
        self.attributes = commit.attributes.clone();
        self.tip = commit.tip;
    }

    /// The unpushed commits become a push in flight, all but `rest`, which were made since.
    pub(crate) fn open_intent(&mut self, intent: Intent, rest: Pending) {
        self.pending = rest;
        self.intent = Some(intent);
    }

    /// The push in flight is in the store as `commit`.
    pub(crate) fn intent_won(&mut self, commit: &CommitHeader) {
        self.intent = None;
        self.stand_on(commit);
        self.diverged = None;
    }

    /// The push in flight is not in the store and never will be: what it
    /// carried is unpushed again.
    pub(crate) fn intent_lost(&mut self) {
        if let Some(intent) = self.intent.take() {
            let newer = std::mem::replace(&mut self.pending, intent.carries);
            if newer.commits > 0 {
                self.pending.changed.truncate(newer.min_count);
                self.pending.min_count = self.pending.min_count.min(newer.min_count);
                self.pending.changed.union_with(&newer.changed);
                self.pending.commits += newer.commits;
            }
        }
    }

    /// Appends the state to `w` as `FORMAT.md` says.
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.block(self.remote.as_str().as_bytes());
        match &self.base {
            None => w.u8(0),
            Some(base) => {
                let is_own = base.volume == self.remote;
                let id = self.volume_id.filter(|_| is_own);
                match id {
                    Some(_) => w.u8(3),
                    None if is_own => w.u8(1),
                    None => {
                        w.u8(2);
                        w.block(base.volume.as_str().as_bytes());
                    }
                }
                w.varint(base.lsn.get());
                w.bytes(base.hash.as_bytes());
                w.varint(base.page_count.get().into());
                if let Some(id) = id {
                    w.bytes(id.as_bytes());
                }
            }
        }
        w.u8(self.page_size.map_or(0, PageSize::log2));
        w.varint(self.page_count.get().into());
        encode_attributes(w, &self.attributes);
        self.pending.encode(w);
        match &self.intent {
            None => w.u8(0),
            Some(intent) => {
                w.u8(1);
                w.varint(intent.target.get());
                w.block(&intent.object);
                intent.carries.encode(w);
                w.varint(intent.tentative.unwrap_or(0));
            }
        }
        w.bytes(self.tip.as_bytes());
        w.varint(self.seq);
        w.varint(self.diverged.map_or(0, Lsn::get));
    }

    /// Reads a state.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<State> {
        let remote = VolumeName::parse(r.text()?)?;
        let flag = r.u8()?;
        let base = match flag {
            0 => None,
            1..=3 => Some(BaseState {
                volume: if flag == 2 { VolumeName::parse(r.text()?)? } else { remote.clone() },
                lsn: Lsn::try_new(r.varint()?)?,
                hash: CommitHash::new(r.array()?),
                page_count: PageCount::new(r.varint32()?),
            }),
            _ => return Err(r.corrupt(format_args!("unknown base {flag}"))),
        };
        let volume_id = if flag == 3 { Some(CommitId::new(r.array()?)) } else { None };
        let page_size = match r.u8()? {
            0 => None,
            log2 => Some(PageSize::from_log2(log2)?),
        };
        let page_count = PageCount::new(r.varint32()?);
        let attributes = decode_attributes(r)?;
        let pending = Pending::decode(r)?;
        let intent = match r.u8()? {
            0 => None,
            1 => Some(Intent {
                target: Lsn::try_new(r.varint()?)?,
                object: r.block()?.to_vec(),
                carries: Pending::decode(r)?,
                tentative: Some(r.varint()?).filter(|seq| *seq > 0),
            }),
            flag => return Err(r.corrupt(format_args!("unknown intent {flag}"))),
        };
        let tip = LocalTip::new(r.array()?);
        let seq = r.varint()?;
        let diverged = Lsn::new(r.varint()?);
        Ok(State { remote, base, volume_id, page_size, page_count, attributes, pending, intent, tip, seq, diverged })
    }
}

impl Pending {
    /// Takes in a commit that was made on a snapshot with pages of `size` and `count` of them.
    pub(crate) fn add(&mut self, commit: &CommitRecord, size: Option<PageSize>, count: PageCount) {
        if self.commits == 0 {
            self.min_count = count;
        }
        self.commits += 1;
        self.min_count = self.min_count.min(commit.low_count);
        self.changed.truncate(commit.low_count);
        if size.is_some_and(|size| size != commit.page_size) {
            self.changed = PageSet::new();
            self.min_count = PageCount::ZERO;
        }
        self.changed.union_with(&commit.changed);
    }

    fn encode(&self, w: &mut Writer) {
        w.varint(self.commits);
        self.changed.encode(w);
        w.varint(self.min_count.get().into());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Pending> {
        let commits = r.varint()?;
        Ok(Pending { commits, changed: PageSet::decode(r)?, min_count: PageCount::new(r.varint32()?) })
    }
}

impl CommitRecord {
    /// The payload of the commit's record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(self.synced);
        w.u8(self.page_size.log2());
        w.varint(self.page_count.get().into());
        w.varint(self.low_count.get().into());
        self.changed.encode(&mut w);
        encode_attributes(&mut w, &self.attributes);
        w.bytes(self.tip.as_bytes());
        if let Some(group) = &self.group {
            w.bytes(group);
        }
        w.into_vec()
    }

    /// What a commit's payload says of the log before it: see `synced`.
    pub(crate) fn synced_before(payload: &[u8]) -> Option<u32> {
        payload.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// Reads the payload of a commit's record.
    pub(crate) fn decode(bytes: &[u8]) -> Result<CommitRecord> {
        let mut r = Reader::new("commit record", bytes);
        let synced = r.u32()?;
        let page_size = PageSize::from_log2(r.u8()?)?;
        let page_count = PageCount::new(r.varint32()?);
        let low_count = PageCount::new(r.varint32()?);
        let changed = PageSet::decode(&mut r)?;
        let attributes = decode_attributes(&mut r)?;
        let tip = LocalTip::new(r.array()?);
        let group = if r.remaining() > 0 { Some(r.array()?) } else { None };
        r.finish()?;
        Ok(CommitRecord { page_size, page_count, low_count, changed, attributes, tip, synced, group })
    }
}

fn encode_attributes(w: &mut Writer, attributes: &Attributes) {
    w.varint(attributes.len() as u64);
    for (key, value) in attributes {
        w.block(key.as_bytes());
        w.block(value.as_bytes());
    }
}

fn decode_attributes(r: &mut Reader<'_>) -> Result<Attributes> {
    let mut attributes = Attributes::new();
    for _ in 0..r.count(2)? {
        let key = r.text()?.to_owned();
        if attributes.insert(key, r.text()?.to_owned()).is_some() {
            return Err(Error::corrupt("an attribute stands twice"));
        }
    }
    Ok(attributes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use quire_proto::PageIdx;

    /// A transaction that changes `pages`, leaves `page_count` of them, and has had no more than `low` in between.
    pub(crate) fn commit(page_count: u32, low: u32, pages: &[u32]) -> CommitRecord {
        CommitRecord {
            page_size: PageSize::DEFAULT,
            page_count: PageCount::new(page_count),
            low_count: PageCount::new(low),
            changed: pages.iter().copied().filter_map(PageIdx::new).collect(),
            attributes: [("content".to_owned(), "sqlite".to_owned())].into(),
            tip: LocalTip::new([9; 16]),
            synced: 77,
            group: Some([7; 16]),
        }
    }

    fn some_state() -> State {
        let mut state = State::new(VolumeName::parse("a/b").unwrap());
        let (volume, page_count) = (state.remote.clone(), PageCount::new(10));
        state.base = Some(BaseState { volume, lsn: Lsn::FIRST, hash: CommitHash::of(b"x"), page_count });
        state.page_count = page_count;
        state.apply_commit(&commit(12, 10, &[3, 11, 12]));
        let carries = state.pending.clone();
        state.open_intent(
            Intent { target: Lsn::FIRST.next(), object: b"object".to_vec(), carries, tentative: Some(4) },
            Pending::default(),
        );
        state.apply_commit(&commit(11, 5, &[4, 11]));
        state
    }

    fn assert_comes_back(state: &State) {
        let mut w = Writer::new();
        state.encode(&mut w);
        let mut r = Reader::new("test", w.as_slice());
        assert_eq!(State::decode(&mut r).unwrap(), *state);
        assert!(r.finish().is_ok());
    }

    #[test]
    fn states_and_commit_records_come_back() {
        let mut state = some_state();
        assert_comes_back(&state);
        state.volume_id = Some(CommitId::new([6; 16]));
        assert_comes_back(&state);
        state.fork(VolumeName::parse("fork").unwrap(), LocalTip::new([3; 16]));
        assert_eq!((state.base_lsn(), state.volume_id), (None, None), "the base is the parent's");
        assert_eq!(state.unpushed(), 3, "both commits and the fork");
        assert_comes_back(&state);
        let record = commit(3, 1, &[2, 3]);
        assert_eq!(CommitRecord::decode(&record.encode()).unwrap(), record);
    }

    #[test]
    fn a_lost_push_leaves_what_one_roll_up_of_all_would_say() {
        let mut lost = some_state();
        lost.intent_lost();
        let mut all = State::new(VolumeName::parse("a/b").unwrap());
        all.page_count = PageCount::new(10);
        all.apply_commit(&commit(12, 10, &[3, 11, 12]));
        all.apply_commit(&commit(11, 5, &[4, 11]));
        assert_eq!(lost.pending, all.pending);
        assert_eq!(lost.pending.min_count.get(), 5);
        assert_eq!(lost.pending.changed.iter().map(PageIdx::get).collect::<Vec<_>>(), [3, 4, 11]);
    }
}
