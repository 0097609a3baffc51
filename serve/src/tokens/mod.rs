//! Signed tokens: who may do what with which volumes.
//!
//! A token is a JWT (RFC 7519). What it allows stands in its claim `quire`: `{"volumes": ["team/*"], "allow": ["read"]}`.
//! Quire's own are signed with Ed25519 (RFC 8037); those of other issuers with any asymmetric algorithm whose key is in
//! the server's key set (RFC 7517). An algorithm that needs a shared secret, and `none`, are never accepted.

mod key;
mod verify;

pub use key::SigningKey;
pub use verify::Verifier;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quire_proto::{Error, Grant, Lsn, Result, Right, VolumePattern};
use serde::{Deserialize, Serialize};

/// What a token is for, if it says so: another service's tokens are not for Quire.
const AUDIENCE: &str = "quire";

/// The claims of a token.
#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    quire: Allowed,
}

#[derive(Serialize, Deserialize)]
struct Allowed {
    volumes: Vec<String>,
    allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from_lsn: Option<u64>,
}

impl Claims {
    fn of(grant: &Grant, now: SystemTime) -> Result<Claims> {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH);
            since.map(|since| since.as_secs()).map_err(|_| Error::invalid("a token cannot expire before 1970"))
        };
        Ok(Claims {
            sub: grant.subject.clone(),
            aud: Some(AUDIENCE.into()),
            iat: Some(seconds(now)?),
            exp: grant.expires.map(seconds).transpose()?,
            quire: Allowed {
                volumes: grant.volumes.iter().map(ToString::to_string).collect(),
                allow: grant.rights.iter().map(ToString::to_string).collect(),
                from_lsn: grant.from_lsn.map(Lsn::get),
            },
        })
    }

    fn grant(self) -> Result<Grant> {
        let Allowed { volumes, allow, from_lsn } = self.quire;
        Ok(Grant {
            subject: self.sub,
            volumes: volumes.iter().map(|text| VolumePattern::parse(text)).collect::<Result<_>>()?,
            rights: allow.iter().map(|text| Right::parse(text)).collect::<Result<_>>()?,
            expires: self.exp.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))),
            from_lsn: from_lsn.map(Lsn::try_new).transpose()?,
        })
    }
}
