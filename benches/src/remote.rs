//! The store: a real S3 server behind a proxy that adds latency to each request.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use quire_testkit::{Fault, Proxy, S3Server};
use tokio::runtime::Runtime;

use crate::phase::Phase;

/// A running server with its proxy.
pub(crate) struct Remote {
    server: S3Server,
    proxy: Proxy,
    trace: bool,
    /// Runs the proxy; its threads end with it.
    _runtime: Runtime,
}

impl Remote {
    pub(crate) fn start(trace: bool) -> Result<Remote> {
        let server = S3Server::start();
        let runtime = Runtime::new()?;
        let proxy = runtime.block_on(Proxy::start(&server.address()));
        Ok(Remote { server, proxy, trace, _runtime: runtime })
    }

    /// A store that nobody has used.
    pub(crate) fn fresh_store(&self) -> String {
        self.server.url("bench")
    }

    /// The round trips in a row of the worker that was last served.
    pub(crate) fn trips(&self) -> u64 {
        self.proxy.traffic().chain
    }

    /// Gives a worker its store, with the phase's latency.
    pub(crate) fn serve(&self, worker: &mut Command, store: &str, phase: Phase) {
        self.proxy.set_latency(phase.latency());
        self.proxy.set_bandwidth(phase.bandwidth());
        if self.trace {
            eprintln!("{}:", phase.name());
            let began = Instant::now();
            self.proxy.set_script(move |request| {
                eprintln!("{:>7} {} {}", began.elapsed().as_millis(), request.method, request.target);
                Fault::None
            });
        }
        self.proxy.reset_traffic();
        worker.env("QUIRE_STORE", store).envs(self.server.variables_through(&self.proxy.address()));
    }
}
