//! The store: a real S3 server behind a proxy that adds latency to each request.

use std::process::Command;

use anyhow::Result;
use quire_testkit::{Proxy, S3Server};
use tokio::runtime::Runtime;

use crate::phase::Phase;

/// A running server with its proxy.
pub(crate) struct Remote {
    server: S3Server,
    proxy: Proxy,
    /// Runs the proxy; its threads end with it.
    _runtime: Runtime,
}

impl Remote {
    pub(crate) fn start() -> Result<Remote> {
        let server = S3Server::start();
        let runtime = Runtime::new()?;
        let proxy = runtime.block_on(Proxy::start(&server.address()));
        Ok(Remote { server, proxy, _runtime: runtime })
    }

    /// A store that nobody has used.
    pub(crate) fn fresh_store(&self) -> String {
        self.server.url("bench")
    }

    /// Gives a worker its store, with the phase's latency.
    pub(crate) fn serve(&self, worker: &mut Command, store: &str, phase: Phase) {
        self.proxy.set_latency(phase.latency());
        worker.env("QUIRE_STORE", store).envs(self.server.variables_through(&self.proxy.address()));
    }
}
