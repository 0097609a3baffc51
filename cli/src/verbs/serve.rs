//! `quire serve`.

use std::net::SocketAddr;

use quire_serve::{Options, Role, Server};
use quire_settings::{Key, StoreKind};
use serde::Serialize;

use crate::args::ServedRole;
use crate::context::Context;
use crate::interrupt::Checkpoints;
use crate::stop::Outcome;

#[derive(Serialize)]
struct Served {
    url: String,
    store: String,
}

pub(crate) fn serve(ctx: &Context, listen: SocketAddr, role: ServedRole, insecure: bool) -> Outcome {
    let store = &ctx.settings.store;
    if store.kind() == StoreKind::Server {
        return Err(ctx
            .settings
            .wrong(Key::Store, format!("{store} is a server itself"))
            .with_remedy("Serve a folder (file:///path) or a bucket (s3://, gs://, az://).")
            .into());
    }
    let quire_settings::Upkeep { log, pages } = quire_settings::open_upkeep(&ctx.settings)?;
    let role = match role {
        ServedRole::All => Role::All,
        ServedRole::Metastore => Role::Metastore,
        ServedRole::Pagestore => Role::Pagestore,
    };
    let server = Server::bind(Options { listen, insecure, role, log, pages })?;
    let served = Served { url: format!("http://{}", server.address()), store: store.to_string() };
    ctx.output.event(&served, |served| format!("{} is served on {}; Ctrl-C ends it", served.store, served.url))?;
    let stopper = server.stopper();
    let _pressed = Checkpoints::and(move || stopper.stop());
    Ok(server.run()?)
}
