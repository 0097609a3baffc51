//! `quire serve`.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use quire_engine::{Error, Result};
use quire_serve::tokens::{SigningKey, Verifier};
use quire_serve::{CacheOptions, Options, Role, Server, StoreCounters, Tls, TlsFiles, Upkeep};
use quire_settings::{Key, StoreKind, parse_duration};
use serde::Serialize;

use crate::args::{ServeArgs, ServedRole, address};
use crate::context::Context;
use crate::interrupt::Checkpoints;
use crate::logging;
use crate::output::size;
use crate::stop::Outcome;

/// Whoever asks for less has forgotten the unit.
const LEAST: ByteSize = ByteSize::mib(1);

#[derive(Serialize)]
struct Served {
    url: String,
    http: Option<String>,
    store: String,
}

pub(crate) fn serve(ctx: &Context, args: &ServeArgs) -> Outcome {
    let store = &ctx.settings.store;
    if store.kind() == StoreKind::Server {
        return Err(ctx
            .settings
            .wrong(Key::Store, format!("{store} is a server itself"))
            .with_remedy("Serve a folder (file:///path) or a bucket (s3://, gs://, az://).")
            .into());
    }
    let poll_interval = parse_duration(&args.poll_interval).filter(|every| !every.is_zero()).ok_or_else(|| {
        Error::invalid(format!("--poll-interval {:?} is not a time", args.poll_interval))
            .with_remedy("It is like 1s or 500ms.")
    })?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificates), Some(key)) => Some(Tls::load(TlsFiles {
            certificates: certificates.clone(),
            key: key.clone(),
            client_authorities: args.tls_client_ca.clone(),
        })?),
        _ => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let bytes_per_second = NonZeroU64::new(args.maintenance_rate.as_u64());
    let [served, upkeep] = quire_settings::open_served(&ctx.settings, bytes_per_second)?;
    let role = match args.role {
        ServedRole::All => Role::All,
        ServedRole::Metastore => Role::Metastore,
        ServedRole::Pagestore => Role::Pagestore,
    };
    let tokens = args.token_keys.clone().map(Verifier::load).transpose()?;
    let options = Options {
        listen: args.listen,
        insecure: args.insecure,
        tokens,
        calls_per_second: args.calls_per_second,
        signing_key: args.token_signing_key.as_deref().map(SigningKey::load).transpose()?.map(Arc::new),
        volume_quota: NonZeroU64::new(bytes("--volume-quota", args.volume_quota.unwrap_or_default())?),
        tls,
        poll_interval,
        role,
        cache: CacheOptions {
            memory_bytes: bytes("--cache-memory", args.cache_memory)?,
            disk: args.cache_dir.clone().map(|folder| (folder, args.cache_disk.as_u64())),
        },
        http: http(args)?,
        log_filter: logging::filter(),
        store_url: store.to_string(),
        counters: both(served.counters, upkeep.counters.clone()),
        upkeep: Upkeep {
            scheduled: !args.no_maintenance,
            bytes_per_second,
            verify_every: verify_every(&args.verify_every)?,
            notes: Some(ctx.settings.data_dir.clone()),
            counters: upkeep.counters,
            log: upkeep.log,
            pages: upkeep.pages,
        },
        log: served.log,
        pages: served.pages,
    };
    let server = Server::bind(options)?;
    let served = Served {
        url: format!("{scheme}://{}", server.address()),
        http: server.http_address().map(|address| format!("http://{address}")),
        store: store.to_string(),
    };
    ctx.output.event(&served, |served| {
        let http = served.http.as_ref().map_or_else(String::new, |http| format!(", its numbers on {http}/metrics"));
        format!("{} is served on {}{http}; Ctrl-C ends it", served.store, served.url)
    })?;
    let stopper = server.stopper();
    let _pressed = Checkpoints::and(move || stopper.stop());
    Ok(server.run()?)
}

/// What clients and upkeep have asked of the store together.
fn both(clients: StoreCounters, upkeep: StoreCounters) -> StoreCounters {
    Arc::new(move || clients() + upkeep())
}

/// A size that was given with a flag; 0 is none.
fn bytes(flag: &str, given: ByteSize) -> Result<u64> {
    match given.as_u64() {
        few @ 1.. if given < LEAST => Err(Error::invalid(format!("{flag}: {} is too small", size(few)))
            .with_remedy("It is 1MiB at least, such as 10GiB; a number without a unit is bytes.")),
        bytes => Ok(bytes),
    }
}

/// How often every byte of a volume is read.
fn verify_every(text: &str) -> Result<Option<Duration>> {
    if text == "never" {
        return Ok(None);
    }
    match parse_duration(text) {
        Some(every) if !every.is_zero() => Ok(Some(every)),
        _ => Err(Error::invalid(format!("--verify-every {text:?} is not a time"))
            .with_remedy("It is like 7d or 12h; or `never`.")),
    }
}

/// Where those who look after the server read how it is.
fn http(args: &ServeArgs) -> Result<Option<SocketAddr>> {
    match args.http.as_deref() {
        Some("none") => Ok(None),
        Some(text) => address(text).map(Some).map_err(|_| {
            Error::invalid(format!("--http {text:?} is not an address"))
                .with_remedy("It is like 127.0.0.1:7481; or `none`.")
        }),
        None => {
            // Port 0 is one that is free.
            let port = args.listen.port().checked_add(u16::from(args.listen.port() > 0)).unwrap_or_default();
            Ok(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
        }
    }
}
