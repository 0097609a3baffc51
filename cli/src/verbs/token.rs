//! `quire token`: keys that sign tokens, and tokens.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use quire_engine::{Error, Lsn, Result};
use quire_serve::tokens::SigningKey;
use quire_serve::{Grant, Right, VolumePattern};
use quire_settings::{Place, parse_duration};
use serde::Serialize;

use crate::args::{GrantArgs, TokenArgs, TokenVerb};
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
    from_lsn: Option<u64>,
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
    let valid = valid(&args.grant.expires)?;
    let expires =
        valid.map(|valid| now.checked_add(valid).ok_or_else(|| wrong_time(&args.grant.expires))).transpose()?;
    let grant = Grant { expires, ..grant(&args.grant)? };
    let told = Token {
        token: key.sign(&grant, now)?,
        from_lsn: grant.from_lsn.map(Lsn::get),
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

/// What is asked for, without its end.
pub(super) fn grant(args: &GrantArgs) -> Result<Grant> {
    Ok(Grant {
        subject: args.subject.clone(),
        volumes: args.volumes.iter().map(|text| VolumePattern::parse(text)).collect::<Result<_>>()?,
        rights: args.allow.iter().map(|text| Right::parse(text)).collect::<Result<_>>()?,
        expires: None,
        from_lsn: args.from_lsn.map(Lsn::try_new).transpose()?,
    })
}

/// How long a token is good; none: for ever.
pub(super) fn valid(text: &str) -> Result<Option<Duration>> {
    match parse_duration(text) {
        _ if text == "never" => Ok(None),
        Some(valid) if !valid.is_zero() => Ok(Some(valid)),
        _ => Err(wrong_time(text)),
    }
}

fn wrong_time(text: &str) -> Error {
    Error::invalid(format!("--expires {text:?} is not a time"))
        .with_remedy("Say how long it is good, such as 30min, 24h or 90d; or `never`.")
}
