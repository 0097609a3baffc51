//! `quire server`: what those ask of a server who look after it.

use quire_engine::{Error, Result};
use quire_proto::wire::run_info::Outcome as Ended;
use quire_proto::wire::{ClientInfo, GrantInfo, RunInfo, ServerInfo, VolumeInfo};
use quire_settings::{Key, parse_duration};

use super::token::{grant, valid};
use crate::args::ServerVerb;
use crate::context::{Context, volume_name};
use crate::output::{count, facts, or_dash, size, table, time};
use crate::stop::Outcome;

pub(crate) fn server(ctx: &Context, verb: &ServerVerb) -> Outcome {
    let Some(server) = quire_settings::open_server(&ctx.settings)? else {
        let store = &ctx.settings.store;
        return Err(ctx
            .settings
            .wrong(Key::Store, format!("{store} is no server"))
            .with_remedy("Name the server: quire --store http://host:7480 server ...")
            .into());
    };
    let output = ctx.output;
    match verb {
        ServerVerb::Info => {
            let info = ask(server.info())?;
            output.result(&info, server_facts)
        }
        ServerVerb::Clients => {
            let clients = ask(server.clients())?;
            output.result(&clients, |clients| clients_table(clients))
        }
        ServerVerb::Runs { name } => {
            let name = name.as_deref().map(volume_name).transpose()?;
            let runs = ask(server.runs(name.as_ref()))?;
            output.result(&runs, |runs| runs_table(runs))
        }
        ServerVerb::Volume { name } => {
            let name = volume_name(name)?;
            let volume = ask(server.describe(&name))?;
            output.result(&volume, volume_facts)
        }
        ServerVerb::LogFilter { filter } => {
            let filter = ask(async {
                match filter {
                    None => server.log_filter().await,
                    Some(filter) => server.set_log_filter(filter).await,
                }
            })?;
            output.result(&serde_json::json!({ "filter": filter }), |_| filter.clone())
        }
        ServerVerb::Whoami => {
            let grant = ask(server.who_am_i())?;
            output.result(&grant, grant_facts)
        }
        ServerVerb::Token(args) => {
            let (grant, valid) = (grant(args)?, valid(&args.expires)?);
            let issued = ask(server.issue_token(&grant, valid))?;
            output.result(&issued, |issued| issued.token.clone())
        }
        ServerVerb::Drain { wait } => {
            let wait_for = parse_duration(wait).ok_or_else(|| {
                Error::invalid(format!("--wait {wait:?} is not a time")).with_remedy("It is like 10s or 5min; or 0s.")
            })?;
            ask(server.drain(wait_for))?;
            let store = ctx.settings.store.to_string();
            output.result(&serde_json::json!({ "server": store, "ends_in_ms": wait_for.as_millis() as u64 }), |_| {
                format!("{store} ends in {wait_for:?}, once what is under way is answered")
            })
        }
    }
}

/// Waits for an answer of the server. No data directory is needed for it: a program may have that one open.
fn ask<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::from_io("making a runtime", e))?.block_on(call)
}

fn server_facts(info: &ServerInfo) -> String {
    let (store, cache, upkeep) = (info.store.clone().unwrap_or_default(), info.cache, info.upkeep.unwrap_or_default());
    let upkeep_in_words = match (upkeep.scheduled, upkeep.bytes_per_second) {
        (false, _) => "only what is asked for".to_owned(),
        (true, 0) => "on, without a limit".to_owned(),
        (true, rate) => format!("on, {} a second", size(rate)),
    };
    facts([
        ("version", Some(info.version.clone())),
        ("role", Some(info.role.clone())),
        ("since", Some(time(info.started_ms))),
        ("state", Some(if info.draining { "draining" } else { "serving" }.to_owned())),
        ("store", Some(store.url)),
        ("volumes", Some(info.volumes.to_string())),
        ("watchers", Some(format!("{} of {}", info.watchers, count(info.volumes_watched, "volume")))),
        ("calls in flight", Some(info.calls_in_flight.to_string())),
        (
            "requests",
            Some(format!(
                "{} gets, {} puts, {} lists, {} heads, {} deletes; about ${:.4}",
                store.gets, store.puts, store.lists, store.heads, store.deletes, store.cost_dollars
            )),
        ),
        ("from the store", Some(size(store.bytes_in))),
        ("to the store", Some(size(store.bytes_out))),
        (
            "frames",
            cache.map(|cache| {
                format!(
                    "{} from the cache, {} from the store, {} joined, {} reads hedged",
                    cache.from_cache, cache.from_store, cache.joined, cache.hedged
                )
            }),
        ),
        ("upkeep", Some(upkeep_in_words)),
        ("looked at all", upkeep.looked_ms.map(time)),
    ])
}

fn clients_table(clients: &[ClientInfo]) -> String {
    table(
        ["ADDRESS", "SUBJECT", "SINCE", "LAST CALL", "CALLS", "IN FLIGHT"],
        clients.iter().map(|client| {
            [
                client.address.clone(),
                or_dash(Some(&client.subject).filter(|subject| !subject.is_empty())),
                time(client.first_seen_ms),
                time(client.last_seen_ms),
                client.calls.to_string(),
                client.calls_in_flight.to_string(),
            ]
        }),
    )
}

fn runs_table(runs: &[RunInfo]) -> String {
    table(
        ["RUN", "VOLUME", "WORK", "BY", "BEGAN", "ENDED", "OUTCOME"],
        runs.iter().map(|run| {
            let by = match run.asked_by.as_str() {
                _ if run.scheduled => "schedule",
                "" => "-",
                somebody => somebody,
            };
            [
                run.id.to_string(),
                run.volume.clone(),
                run.work.clone(),
                by.to_owned(),
                time(run.began_ms),
                or_dash(run.ended_ms.map(time)),
                outcome(run),
            ]
        }),
    )
}

fn outcome(run: &RunInfo) -> String {
    match &run.outcome {
        None if run.waiting => "waits for its turn".to_owned(),
        None => format!("{} read, {} written so far", size(run.bytes_read), size(run.bytes_written)),
        Some(Ended::Failed(problem)) => format!("failed: {problem}"),
        Some(Ended::Checkpoint(report)) => format!("LSN {}, {}", report.lsn, size(report.bytes)),
        Some(Ended::Compact(report)) => {
            format!(
                "LSN {}, {} rewritten, {} written",
                report.lsn,
                count(report.pages, "page"),
                size(report.bytes_written)
            )
        }
        Some(Ended::Collect(report)) => {
            let bytes =
                [&report.commits, &report.checkpoints, &report.segments].into_iter().flatten().map(|a| a.bytes).sum();
            format!("kept from LSN {}, {} gone", report.horizon_lsn, size(bytes))
        }
        Some(Ended::Verify(report)) if report.damage.is_empty() => {
            format!("sound up to LSN {}, {} read", report.lsn, size(report.bytes))
        }
        Some(Ended::Verify(report)) => {
            format!("{} damaged", count(report.damage.len() as u64 + report.more_damage, "object"))
        }
    }
}

fn volume_facts(volume: &VolumeInfo) -> String {
    let head = volume.head.as_ref();
    let quota = if volume.quota_bytes > 0 { format!(" of {}", size(volume.quota_bytes)) } else { String::new() };
    facts([
        ("name", Some(volume.volume.clone())),
        ("state", Some(volume.state.clone())),
        ("lsn", head.map(|head| head.lsn.to_string())),
        ("time", head.map(|head| time(head.time_ms))),
        ("author", head.map(|head| head.author.clone())),
        ("pages", head.map(|head| format!("{} of {}", head.page_count, size(head.page_size.into())))),
        ("checkpoint", Some(volume.checkpoint_lsn).filter(|lsn| *lsn > 0).map(|lsn| format!("LSN {lsn}"))),
        ("keeps", Some(volume.keeps.clone())),
        ("watchers", Some(volume.watchers.to_string())),
        ("segments", volume.segments.map(|amount| format!("{}, {}{quota}", amount.objects, size(amount.bytes)))),
        (
            "verified",
            Some(volume.verified_ms.map_or_else(
                || "never by this server".to_owned(),
                |at| format!("LSN {} at {}, every byte", volume.verified_lsn, time(at)),
            )),
        ),
    ])
}

fn grant_facts(grant: &GrantInfo) -> String {
    let subject = if grant.subject.is_empty() { "nobody in particular" } else { &grant.subject };
    facts([
        ("subject", Some(subject.to_owned())),
        ("volumes", Some(grant.volumes.join(", "))),
        ("rights", Some(grant.rights.join(", "))),
        ("from LSN", Some(grant.from_lsn).filter(|lsn| *lsn > 0).map(|lsn| lsn.to_string())),
        ("expires", Some(grant.expires_ms.map_or_else(|| "never".to_owned(), time))),
    ])
}
