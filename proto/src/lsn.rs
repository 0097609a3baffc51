//! The log sequence number.

use std::fmt;
use std::num::NonZeroU64;

use crate::{Error, Result};

/// A volume's log sequence number: 1, 2, 3 … without gaps. LSN n names both
/// the n-th commit and the snapshot that it made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(NonZeroU64);

impl Lsn {
    /// The first commit of every volume.
    pub const FIRST: Lsn = Lsn(NonZeroU64::MIN);

    /// No LSN is greater: it is an integer in SQL, and has one after it, whoever made it up.
    pub const MAX: u64 = i64::MAX as u64;

    /// The LSN `n`, or `None` for 0 and for what is above [`MAX`](Self::MAX).
    pub const fn new(n: u64) -> Option<Lsn> {
        match NonZeroU64::new(n) {
            Some(n) if n.get() <= Lsn::MAX => Some(Lsn(n)),
            _ => None,
        }
    }

    /// Checks a number that came from outside.
    pub fn try_new(n: u64) -> Result<Lsn> {
        Lsn::new(n).ok_or_else(|| Error::invalid(format!("{n} is no LSN: they go from 1 to {}", Lsn::MAX)))
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The LSN after this one.
    #[must_use]
    pub const fn next(self) -> Lsn {
        match self.0.checked_add(1) {
            Some(n) => Lsn(n),
            None => panic!("a log of 2^64-1 commits cannot exist: LSNs are appended one by one"),
        }
    }

    /// The LSN before this one, or `None` for the first.
    pub const fn prev(self) -> Option<Lsn> {
        Lsn::new(self.get() - 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
