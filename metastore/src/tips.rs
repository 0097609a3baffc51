//! What this process has last seen of each log. A log only grows and its
//! commits never change, so this is never wrong, only old: it saves the reads
//! by which an append would convince itself that its parent exists.

use std::collections::HashMap;

use parking_lot::Mutex;
use quire_proto::{CommitHash, CommitHeader, CommitKind, Lsn, VolumeName, VolumeState};

/// More names than this are not remembered; forgetting costs a read each.
const MAX_TIPS: usize = 16 * 1024;

/// A commit that is in the log, and what the name stood for after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) lsn: Lsn,
    pub(crate) hash: CommitHash,
    /// Whether a volume lives under the name.
    pub(crate) live: bool,
}

impl Tip {
    /// The tip that a name's state shows; none for a name without commits.
    pub(crate) fn of(state: &VolumeState) -> Option<Tip> {
        let head = state.head()?;
        Some(Tip { lsn: head.lsn(), hash: head.hash(), live: matches!(state, VolumeState::Live(_)) })
    }

    /// The tip once `header` is appended to a log whose volume was `live`.
    /// None for the fork of a rename: what it is gets decided elsewhere.
    fn after(header: &CommitHeader, live: bool) -> Option<Tip> {
        let live = match header.kind {
            CommitKind::Void => live,
            CommitKind::Deleted | CommitKind::Moved => false,
            CommitKind::Fork if header.condition.is_some() => return None,
            CommitKind::Create | CommitKind::Write | CommitKind::Restore | CommitKind::Fork => true,
        };
        Some(Tip { lsn: header.lsn, hash: header.hash(), live })
    }
}

/// The newest known tip of each volume.
#[derive(Debug, Default)]
pub(crate) struct Tips {
    tips: Mutex<HashMap<VolumeName, Tip>>,
}

impl Tips {
    pub(crate) fn get(&self, volume: &VolumeName) -> Option<Tip> {
        self.tips.lock().get(volume).copied()
    }

    /// Remembers what a name's state shows.
    pub(crate) fn learn(&self, volume: &VolumeName, state: &VolumeState) {
        if let Some(tip) = Tip::of(state) {
            self.advance(volume, tip);
        }
    }

    /// Remembers a commit that was appended to a log whose volume was `live`.
    pub(crate) fn appended(&self, volume: &VolumeName, header: &CommitHeader, live: bool) {
        if let Some(tip) = Tip::after(header, live) {
            self.advance(volume, tip);
        }
    }

    fn advance(&self, volume: &VolumeName, tip: Tip) {
        let mut tips = self.tips.lock();
        if tips.get(volume).is_some_and(|known| known.lsn >= tip.lsn) {
            return;
        }
        if tips.len() >= MAX_TIPS && !tips.contains_key(volume) {
            tips.clear();
        }
        tips.insert(volume.clone(), tip);
    }
}
