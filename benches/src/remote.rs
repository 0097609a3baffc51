//! The store: a real S3 server behind a proxy that adds latency to each request, or `quire serve` beside that server, at
//! the end of a line as long.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use quire_testkit::{Fault, Line, Proxy, S3Server, Served, Traffic, Trouble};
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

/// A store that nobody has used, and the server that serves it, once one was needed.
pub(crate) struct Store<'a> {
    remote: &'a Remote,
    url: String,
    served: Option<Served>,
    /// The lines to it end with it.
    lines: Vec<Line>,
}

impl Remote {
    pub(crate) fn start(trace: bool) -> Result<Remote> {
        let server = S3Server::start();
        let runtime = Runtime::new()?;
        let proxy = runtime.block_on(Proxy::start(&server.address()));
        Ok(Remote { server, proxy, trace, _runtime: runtime })
    }

    pub(crate) fn fresh_store(&self) -> Store<'_> {
        Store { remote: self, url: self.server.url("bench"), served: None, lines: Vec::new() }
    }
}

impl Store<'_> {
    /// What the worker that was last given the bucket asked of it.
    pub(crate) fn traffic(&self) -> Traffic {
        self.remote.proxy.traffic()
    }

    /// Gives a worker its store, with the phase's latency. `program` serves it if need be, with its files in `folder`.
    pub(crate) fn give(&mut self, worker: &mut Command, phase: Phase, program: &Path, folder: &Path) {
        let Remote { server, proxy, trace, .. } = self.remote;
        proxy.reset_traffic();
        if phase.is_served() {
            let served = self.served.get_or_insert_with(|| {
                let mut command = Command::new(program);
                command.env("QUIRE_STORE", &self.url).env("QUIRE_DATA_DIR", folder.join("server"));
                command.envs(server.variables());
                Served::start(command, 0, &["--no-maintenance"])
            });
            let each_way = phase.latency() / 2;
            let trouble = if each_way.is_zero() { Trouble::None } else { Trouble::Delay(each_way) };
            let line = Line::start(served.address(), move || trouble);
            worker.env("QUIRE_STORE", format!("http://{}", line.address()));
            self.lines.push(line);
            return;
        }
        proxy.set_latency(phase.latency());
        proxy.set_bandwidth(phase.bandwidth());
        if *trace {
            eprintln!("{}:", phase.name());
            let began = Instant::now();
            proxy.set_script(move |request| {
                eprintln!("{:>7} {} {}", began.elapsed().as_millis(), request.method, request.target);
                Fault::None
            });
        }
        worker.env("QUIRE_STORE", &self.url).envs(server.variables_through(&proxy.address()));
    }
}
