//! What a caller of a server may do: which rights it has, on which volumes, and until when.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::{Error, ErrorKind, Lsn, Result, VolumeName};

/// What somebody may do with a volume. No right holds another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Read its pages and its log, and keep what is being read from collection.
    Read,
    /// Commit to it.
    Write,
    /// End it, give it another name, and decide what is kept of its history.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 3] = [Right::Read, Right::Write, Right::Admin];

    /// The right's name as users see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Write => "write",
            Right::Admin => "admin",
        }
    }

    /// The right of this name.
    pub fn parse(name: &str) -> Result<Right> {
        let found = Right::ALL.into_iter().find(|right| right.as_str() == name);
        found.ok_or_else(|| Error::invalid(format!("there is no right {name:?}; there are read, write and admin")))
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names of volumes: one name (`team/app`), all that begin alike (`team/*`), or all (`*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePattern {
    /// In normal form C, as names are.
    prefix: String,
    is_open: bool,
}

impl VolumePattern {
    /// Checks a pattern that a person wrote.
    pub fn parse(text: &str) -> Result<VolumePattern> {
        let (prefix, is_open) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
        let wrong = |problem: &str| {
            Error::invalid(format!("pattern {text:?}: {problem}"))
                .with_remedy("A pattern is a volume's name, or the beginning of names and a '*', such as team/*.")
        };
        if prefix.contains('*') {
            return Err(wrong("a '*' stands only at the end"));
        }
        // What is open may end inside of a part or after its slash.
        let completed = if is_open { format!("{prefix}x") } else { prefix.to_owned() };
        let name = VolumeName::parse(&completed).map_err(|e| wrong(e.message()))?;
        let prefix =
            if is_open { name.as_str()[..name.as_str().len() - 1].to_owned() } else { name.as_str().to_owned() };
        Ok(VolumePattern { prefix, is_open })
    }

    /// Whether every volume that `other` matches is one of them.
    pub fn covers(&self, other: &VolumePattern) -> bool {
        match self.is_open {
            true => other.prefix.starts_with(&self.prefix),
            false => !other.is_open && other.prefix == self.prefix,
        }
    }

    /// Whether this volume is one of them.
    pub fn matches(&self, volume: &VolumeName) -> bool {
        match self.is_open {
            true => volume.as_str().starts_with(&self.prefix),
            false => volume.as_str() == self.prefix,
        }
    }
}

impl fmt::Display for VolumePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, if self.is_open { "*" } else { "" })
    }
}

/// What one caller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who it is, for people.
    pub subject: String,
    /// The volumes.
    pub volumes: Vec<VolumePattern>,
    /// What it may do with them.
    pub rights: Vec<Right>,
    /// When it ends.
    pub expires: Option<SystemTime>,
    /// It allows nothing of what a volume was before this LSN.
    pub from_lsn: Option<Lsn>,
}

impl Grant {
    /// Everything, for ever: what each caller has where no token is asked for.
    pub fn everything() -> Grant {
        let all = VolumePattern { prefix: String::new(), is_open: true };
        Grant { subject: String::new(), volumes: vec![all], rights: Right::ALL.to_vec(), expires: None, from_lsn: None }
    }

    /// Whether the caller may do this with a volume.
    pub fn may(&self, volume: &VolumeName, right: Right) -> bool {
        self.rights.contains(&right) && self.volumes.iter().any(|pattern| pattern.matches(volume))
    }

    /// Whether whoever has this may do all that `other` allows, as long as that does.
    pub fn covers(&self, other: &Grant) -> bool {
        other.volumes.iter().all(|pattern| self.volumes.iter().any(|own| own.covers(pattern)))
            && other.rights.iter().all(|right| self.rights.contains(right))
            && match (self.expires, other.expires) {
                (None, _) => true,
                (Some(own), Some(other)) => other <= own,
                (Some(_), None) => false,
            }
            && self.from_lsn <= other.from_lsn
    }

    /// Whether the caller may know what a volume was at an LSN, if it may read it.
    pub fn reaches(&self, lsn: Lsn) -> bool {
        self.from_lsn.is_none_or(|from| from <= lsn)
    }

    /// An error if the caller may not know what a volume was at an LSN.
    pub fn check_reach(&self, volume: &VolumeName, lsn: Lsn) -> Result<()> {
        match self.from_lsn {
            Some(from) if lsn < from => {
                let message = format!("{} has no right to read volume {volume} before LSN {from}", self.who());
                Err(Error::new(ErrorKind::Denied, message).with_remedy(format!(
                    "Ask for a token that goes further back. What it may read but lies in older commits is found once the \
                     volume is compacted (`quire compact {volume}`)."
                )))
            }
            _ => Ok(()),
        }
    }

    fn who(&self) -> &str {
        if self.subject.is_empty() { "this token" } else { &self.subject }
    }

    /// How long it is good from now on; none: for ever.
    pub fn left(&self) -> Option<Duration> {
        self.expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// Whether the caller may do this with every volume.
    pub fn may_everywhere(&self, right: Right) -> bool {
        self.rights.contains(&right) && self.volumes.iter().any(|pattern| pattern.is_open && pattern.prefix.is_empty())
    }

    /// An error if the caller may not do this. It does not tell whether there is such a volume.
    pub fn check(&self, volume: &VolumeName, right: Right) -> Result<()> {
        if self.may(volume, right) {
            return Ok(());
        }
        let who = self.who();
        Err(Error::new(ErrorKind::Denied, format!("{who} has no right to {} volume {volume}", verb(right)))
            .with_remedy(format!("Ask for a token that allows {right} on {volume} (`quire token new`).")))
    }

    /// The volume that the caller names, if it may do this with it.
    pub fn volume(&self, name: &str, right: Right) -> Result<VolumeName> {
        let volume = VolumeName::parse(name).map_err(|e| e.context("field `volume`"))?;
        self.check(&volume, right).map(|()| volume)
    }
}

fn verb(right: Right) -> &'static str {
    match right {
        Right::Read => "read",
        Right::Write => "write to",
        Right::Admin => "administer",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use super::*;

    fn name(text: &str) -> VolumeName {
        VolumeName::parse(text).unwrap()
    }

    #[test]
    fn patterns_match_what_they_say_and_nothing_else() {
        for (pattern, matching, others) in [
            ("team/app", &["team/app"][..], &["team/app2", "team/ap", "team", "team/app/x"][..]),
            ("team/*", &["team/a", "team/a/b"], &["team", "teams/a", "a/team/b"]),
            ("team*", &["team", "teams/a"], &["tea", "a/team"]),
            ("*", &["a", "a/b"], &[]),
            ("caf\u{e9}", &["cafe\u{301}"], &["cafe"]),
        ] {
            let parsed = VolumePattern::parse(pattern).unwrap();
            assert_eq!(parsed.to_string(), pattern);
            assert!(matching.iter().all(|volume| parsed.matches(&name(volume))), "{pattern}");
            assert!(!others.iter().any(|volume| parsed.matches(&name(volume))), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["", "a**", "*/a", "a/*/b", "/*", "a//*", "../*", "..", "a/../*", "a\u{0}*", "/"] {
            assert!(VolumePattern::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_grant_covers_what_is_within_it_and_nothing_else() {
        let grant = |volumes: &[&str], rights: &[Right], seconds: Option<u64>| Grant {
            subject: String::new(),
            volumes: volumes.iter().map(|text| VolumePattern::parse(text).unwrap()).collect(),
            rights: rights.to_vec(),
            expires: seconds.map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s)),
            from_lsn: None,
        };
        let own = grant(&["team/*", "app"], &[Right::Read, Right::Write], Some(100));
        for within in [
            grant(&["team/*"], &[Right::Read], Some(100)),
            grant(&["team/a", "team/b/*", "app"], &[Right::Write, Right::Read], Some(7)),
        ] {
            assert!(own.covers(&within), "{within:?}");
        }
        for beyond in [
            grant(&["team*"], &[Right::Read], Some(1)),
            grant(&["*"], &[Right::Read], Some(1)),
            grant(&["app*"], &[Right::Read], Some(1)),
            grant(&["team/a", "other"], &[Right::Read], Some(1)),
            grant(&["app"], &[Right::Admin], Some(1)),
            grant(&["app"], &[Right::Read], Some(101)),
            grant(&["app"], &[Right::Read], None),
        ] {
            assert!(!own.covers(&beyond), "{beyond:?}");
        }
        assert!(Grant::everything().covers(&own) && !own.covers(&Grant::everything()));
        let from = |n| Grant { from_lsn: Lsn::new(n), ..own.clone() };
        assert!(own.covers(&from(5)) && from(5).covers(&from(5)) && from(5).covers(&from(6)));
        assert!(!from(5).covers(&own) && !from(5).covers(&from(4)));
    }

    #[test]
    fn a_grant_gives_its_rights_on_its_volumes_only() {
        let grant = Grant {
            subject: "ada".into(),
            volumes: vec![VolumePattern::parse("team/*").unwrap()],
            rights: vec![Right::Read],
            expires: None,
            from_lsn: None,
        };
        assert_eq!(grant.volume("team/a", Right::Read).unwrap(), name("team/a"));
        for (volume, right) in [("team/a", Right::Write), ("team/a", Right::Admin), ("other", Right::Read)] {
            let denied = grant.volume(volume, right).unwrap_err();
            assert_eq!(denied.kind(), ErrorKind::Denied);
            assert!(denied.message().contains("ada") && denied.message().contains(volume), "{denied}");
        }
        assert_eq!(grant.volume("team/../other", Right::Read).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(Right::ALL.into_iter().all(|right| Grant::everything().may(&name("x/y"), right)));
        assert!(Grant::everything().may_everywhere(Right::Read) && !grant.may_everywhere(Right::Read));
    }
}
