//! What the owner of a volume wants kept of its history. Layout: `FORMAT.md`, "Retention".

use std::collections::BTreeSet;
use std::fmt;

use crate::{Error, Lsn, Reader, Result, Writer};

const MAGIC: [u8; 4] = *b"QRET";
const VERSION: u8 = 1;

/// What to keep of a volume's history besides its newest snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// How far back every snapshot is kept.
    pub span: Span,
    /// Snapshots that are kept however old they are.
    pub named: BTreeSet<Lsn>,
}

/// How far back every snapshot is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    /// To the beginning.
    #[default]
    All,
    /// What was the content of the volume at some time in the last so many milliseconds.
    Time(u64),
    /// So many commits, the newest included; at least 1.
    Last(u64),
}

/// As they are shown; a minute is also read as `m`.
const UNITS: [(&str, u64); 5] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];

impl Span {
    /// Reads `all`, `last N`, or a time such as `7d`, `12h`, `30min`.
    pub fn parse(text: &str) -> Result<Span> {
        let wrong = || {
            Error::invalid(format!("`{text}` does not say what to keep"))
                .with_remedy("Say `all`, `last N`, or a time such as `7d`, `12h` or `30min`.")
        };
        let text = text.trim();
        if text == "all" {
            return Ok(Span::All);
        }
        if let Some(n) = text.strip_prefix("last ") {
            return n.trim().parse().ok().filter(|n| *n > 0).map(Span::Last).ok_or_else(wrong);
        }
        let mut units = UNITS.into_iter().chain([("m", 60_000)]);
        let (unit, ms) = units.find(|(unit, _)| text.ends_with(unit)).ok_or_else(wrong)?;
        let n: u64 = text.strip_suffix(unit).and_then(|n| n.parse().ok()).filter(|n| *n > 0).ok_or_else(wrong)?;
        n.checked_mul(ms).map(Span::Time).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Span::All => f.write_str("all"),
            Span::Last(n) => write!(f, "last {n}"),
            Span::Time(time) => {
                let (unit, ms) = UNITS.into_iter().find(|(_, ms)| time % ms == 0).unwrap_or(("ms", 1));
                write!(f, "{}{unit}", time / ms)
            }
        }
    }
}

impl Retention {
    /// The object.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.bytes(&MAGIC);
        w.u8(VERSION);
        let (kind, n) = match self.span {
            Span::All => (0, 0),
            Span::Time(ms) => (1, ms),
            Span::Last(n) => (2, n),
        };
        w.u8(kind);
        w.varint(n);
        w.varint(self.named.len() as u64);
        let mut before = 0;
        for lsn in &self.named {
            w.varint(lsn.get() - before);
            before = lsn.get();
        }
        let crc = crc32fast::hash(w.as_slice());
        w.u32(crc);
        w.into_vec()
    }

    /// Reads what was said.
    pub fn decode(object: &[u8]) -> Result<Retention> {
        let mut r = Reader::new("retention", object);
        r.magic(MAGIC, VERSION)?;
        let span = match (r.u8()?, r.varint()?) {
            (0, 0) => Span::All,
            (1, ms) if ms > 0 => Span::Time(ms),
            (2, n) if n > 0 => Span::Last(n),
            (kind, n) => return Err(r.corrupt(format_args!("{n} of kind {kind} say nothing"))),
        };
        let mut named = BTreeSet::new();
        let mut at: u64 = 0;
        for _ in 0..r.count(1)? {
            let step = r.varint()?;
            at = at.checked_add(step).filter(|_| step > 0).ok_or_else(|| r.corrupt("its LSNs do not ascend"))?;
            named.extend(Lsn::new(at));
        }
        r.checksum(object)?;
        r.finish()?;
        Ok(Retention { span, named })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_was_said_comes_back() {
        for span in ["all", "7d", "2w", "30min", "5m", "90s", "last 12"] {
            let span = Span::parse(span).unwrap();
            let retention = Retention { span, named: [3, 9].into_iter().filter_map(Lsn::new).collect() };
            assert_eq!(Retention::decode(&retention.encode()).unwrap(), retention);
            assert_eq!(Span::parse(&span.to_string()).unwrap(), span);
        }
        assert_eq!(Span::parse("14d").unwrap().to_string(), "2w");
        assert_eq!(Span::parse("7m").unwrap().to_string(), "7min");
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for text in ["", "7", "d", "0d", "-7d", "last", "last 0", "last x", "7 y", "all of it", "99999999999999999d"] {
            let error = Span::parse(text).unwrap_err();
            assert!(error.remedy().is_some_and(|remedy| remedy.contains("7d")), "{text}: {error}");
        }
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let object = Retention { span: Span::Last(300), named: Lsn::new(5).into_iter().collect() }.encode();
        for (at, flip) in (0..object.len()).flat_map(|at| (0..8).map(move |bit| (at, 1 << bit))) {
            let mut bytes = object.clone();
            bytes[at] ^= flip;
            assert_eq!(Retention::decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
            assert_eq!(Retention::decode(&object[..at]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
