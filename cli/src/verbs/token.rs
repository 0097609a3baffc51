//! `quire token`: keys that sign tokens, and tokens.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use quire_engine::{Error, Result};
use quire_maintenance::collect::Span;
use quire_serve::tokens::SigningKey;
use quire_serve::{Grant, Right, VolumePattern};
use quire_settings::Place;
use serde::Serialize;

use crate::args::{TokenArgs, TokenVerb};
use crate::output::Output;
use crate::stop::Outcome;

#[derive(Serialize)]
struct Made {
    key: PathBuf,
    public: PathBuf,
}

#[derive(Serialize)]
struct Token {
    token: String,
    subject: String,
    volumes: Vec<String>,
    allow: Vec<String>,
    expires: Option<String>,
}

/// It needs no settings.
pub(crate) fn token(output: Output, verb: &TokenVerb) -> Outcome {
    match verb {
        TokenVerb::Key { file } => make_key(output, file.clone()),
        TokenVerb::New(args) => make_token(output, args),
    }
}

fn make_key(output: Output, file: Option<PathBuf>) -> Outcome {
    let key = key_file(file)?;
    SigningKey::generate()?.save(&key)?;
    let made = Made { public: SigningKey::public_file(&key), key };
    output.result(&made, |made| {
        format!(
            "{} signs tokens: keep it to yourself\n{} is for servers: quire serve --token-keys {}",
            made.key.display(),
            made.public.display(),
            made.public.display()
        )
    })
}

fn make_token(output: Output, args: &TokenArgs) -> Outcome {
    let key = SigningKey::load(&key_file(args.key.clone())?)?;
    let now = SystemTime::now();
    let grant = Grant {
        subject: args.subject.clone(),
        volumes: args.volumes.iter().map(|text| VolumePattern::parse(text)).collect::<Result<_>>()?,
        rights: args.allow.iter().map(|text| Right::parse(text)).collect::<Result<_>>()?,
        expires: expires(&args.expires, now)?,
    };
    let told = Token {
        token: key.sign(&grant, now)?,
        subject: grant.subject,
        volumes: grant.volumes.iter().map(ToString::to_string).collect(),
        allow: grant.rights.iter().map(ToString::to_string).collect(),
        expires: grant.expires.and_then(|at| jiff::Timestamp::try_from(at).ok()).map(|at| at.to_string()),
    };
    output.result(&told, |told| told.token.clone())
}

fn key_file(named: Option<PathBuf>) -> Result<PathBuf> {
    let folder = || Place::current().map(|place| place.config_folder);
    match named {
        Some(file) => Ok(file),
        None => folder()?.map(|folder| folder.join("token.key")).ok_or_else(|| {
            Error::invalid("this system has no configuration folder").with_remedy("Name a file for the key.")
        }),
    }
}

/// When a token that is made now ends.
fn expires(text: &str, now: SystemTime) -> Result<Option<SystemTime>> {
    if text == "never" {
        return Ok(None);
    }
    let after = match Span::parse(text) {
        Ok(Span::Time(ms)) => now.checked_add(Duration::from_millis(ms)),
        _ => None,
    };
    let wrong = || {
        Error::invalid(format!("--expires {text:?} is not a time"))
            .with_remedy("Say how long it is good, such as 30m, 24h or 90d; or `never`.")
    };
    after.map(Some).ok_or_else(wrong)
}
