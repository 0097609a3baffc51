//! What can go wrong between a client and its store, and how often it did.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One way in which a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The request is lost on its way; the store never sees it.
    LostRequest,
    /// The store does what it is told, and the answer is lost.
    LostReply,
    /// The client gives up waiting; its write lands later, after other requests.
    LateWrite,
    /// No connection comes about.
    Unreached,
    /// From some request on, every one is refused: the credentials have ended.
    Denied,
    /// Fewer bytes come than the object has.
    ShortBody,
    /// One bit of the answer is another.
    FlippedBody,
    /// The newest objects are not listed yet.
    LateList,
    /// The request, or its answer, waits while others overtake it.
    Held,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 9] = [
        Fault::LostRequest,
        Fault::LostReply,
        Fault::LateWrite,
        Fault::Unreached,
        Fault::Denied,
        Fault::ShortBody,
        Fault::FlippedBody,
        Fault::LateList,
        Fault::Held,
    ];
}

/// How often each fault happened.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; Fault::ALL.len()]);

impl Tally {
    /// Counts one.
    pub fn note(&self, fault: Fault) {
        self.0[fault as usize].fetch_add(1, Relaxed);
    }

    /// How often it happened.
    pub fn count(&self, fault: Fault) -> u64 {
        self.0[fault as usize].load(Relaxed)
    }

    /// How often anything happened.
    pub fn total(&self) -> u64 {
        Fault::ALL.iter().map(|fault| self.count(*fault)).sum()
    }

    /// Adds what another has counted.
    pub fn add(&self, other: &Tally) {
        for fault in Fault::ALL {
            self.0[fault as usize].fetch_add(other.count(fault), Relaxed);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = Fault::ALL.iter().map(|fault| format!("{fault:?} {}", self.count(*fault))).collect();
        f.write_str(&counts.join(", "))
    }
}
