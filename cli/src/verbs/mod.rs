//! The verbs, one story a file.

mod about;
mod collect;
mod compact;
mod create;
mod diff;
mod export;
mod history;
mod import;
mod import_database;
mod info;
mod list;
mod log;
mod names;
mod replica;
mod replicate;
mod serve;
mod server;
mod status;
mod token;
mod verify;
mod verify_store;

use quire_serve::Traces;

use crate::args::{Cli, Verb};
use crate::context::Context;
use crate::output::Output;
use crate::stop::Outcome;
use crate::{logging, shell};

use replicate::Direction;

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Outcome {
    // These need no settings, so that a wrong one does not stand in their way.
    match &cli.verb {
        Verb::Version => return about::version(cli.global.json),
        Verb::Completions { shell } => return about::completions(*shell),
        Verb::Token(verb) => return token::token(Output { json: cli.global.json }, verb),
        _ => {}
    }
    let ctx = Context::new(&cli.global)?;
    let traces = if let Verb::Serve(_) = &cli.verb { Traces::from_environment()? } else { None };
    logging::start(&ctx.settings, traces.as_ref())?;
    match &cli.verb {
        Verb::Create { name, page_size } => create::create(&ctx, name, *page_size),
        Verb::Ls { prefix } => list::list(&ctx, prefix.as_deref().unwrap_or_default()),
        Verb::Info { name } => info::info(&ctx, name),
        Verb::Import { file, name, page_size, bytes } => import::import(&ctx, file, name, *page_size, *bytes),
        Verb::Export { name, file, force } => export::export(&ctx, name, file, *force),
        Verb::Push(names) => replicate::replicate(&ctx, Direction::Push, &names.names),
        Verb::Pull(names) => replicate::replicate(&ctx, Direction::Pull, &names.names),
        Verb::Sync(names) => replicate::replicate(&ctx, Direction::Sync, &names.names),
        Verb::Fetch(names) => replicate::replicate(&ctx, Direction::Fetch, &names.names),
        Verb::Status(names) => status::status(&ctx, &names.names),
        Verb::Log { name } => log::log(&ctx, name),
        Verb::Clone { name, local_name } => replica::clone(&ctx, name, local_name.as_deref()),
        Verb::Fork { name, new } => history::fork(&ctx, name, new),
        Verb::Restore { name } => history::restore(&ctx, name),
        Verb::Diff { name, a, b } => diff::diff(&ctx, name, a, b),
        Verb::Reset { name } => replica::reset(&ctx, name),
        Verb::Wait { name, lsn, timeout } => replica::wait(&ctx, name, *lsn, timeout),
        Verb::Mv { name, new } => names::rename(&ctx, name, new),
        Verb::Rm { name, in_store: true, .. } => names::delete_in_store(&ctx, name),
        Verb::Rm { name, in_store: false, force } => names::remove_replica(&ctx, name, *force),
        Verb::Sql { name, sql } => shell::sql(&ctx, name, sql.as_deref()),
        Verb::Checkpoint { name } => replica::checkpoint(&ctx, name),
        Verb::Compact { name } => compact::compact(&ctx, name),
        Verb::Keep { name, what, no_longer } => collect::keep(&ctx, name, what, *no_longer),
        Verb::Gc { names, dry_run, grace } => collect::gc(&ctx, names, *dry_run, grace),
        Verb::Hydrate { name } => replica::hydrate(&ctx, name),
        Verb::Verify { name, deep } => verify::verify(&ctx, name, *deep),
        Verb::Watch { name, after } => log::watch(&ctx, name, *after),
        Verb::Serve(args) => serve::serve(&ctx, args),
        Verb::Server(verb) => server::server(&ctx, verb),
        Verb::Config => about::config(&ctx),
        Verb::Version | Verb::Completions { .. } | Verb::Token(_) => Ok(()), // answered above
    }
}
