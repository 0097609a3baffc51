//! Connections that nobody else can read, by rustls. A certificate that is renewed is used from the next connection on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream::poll_fn;
use quire_proto::{Error, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::reload::Reloaded;

/// Who connects has so long to agree on a key.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So many may do so at the same time; others wait in the system's queue.
const HANDSHAKES: usize = 256;
/// After an error such as too many open files, the next connection is awaited so much later.
const PAUSE: Duration = Duration::from_millis(50);

/// Where certificates and keys lie, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and an authority that clients trust.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// If clients have to show a certificate: of the authorities that may have made it.
    pub client_authorities: Option<PathBuf>,
}

/// What the files mean.
#[derive(Clone)]
pub struct Tls {
    config: Arc<Reloaded<Arc<ServerConfig>>>,
}

fn wrong(file: &Path, problem: impl std::fmt::Display) -> Error {
    Error::invalid(format!("{}: {problem}", file.display())).with_remedy(
        "Certificates and keys are PEM files; the certificate of the server comes first, then those above it.",
    )
}

fn certificates(file: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(text).collect::<std::result::Result<Vec<_>, _>>();
    let found = found.map_err(|e| wrong(file, e))?;
    if found.is_empty() { Err(wrong(file, "it holds no certificate")) } else { Ok(found) }
}

fn config(files: &[PathBuf], texts: &[Vec<u8>]) -> Result<Arc<ServerConfig>> {
    let chain = certificates(&files[0], &texts[0])?;
    let key = PrivateKeyDer::from_pem_slice(&texts[1]).map_err(|e| wrong(&files[1], e))?;
    // Said here, as another one may be linked too.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| wrong(&files[0], e))?;
    let builder = match (files.get(2), texts.get(2)) {
        (Some(file), Some(text)) => {
            let mut authorities = RootCertStore::empty();
            for certificate in certificates(file, text)? {
                authorities.add(certificate).map_err(|e| wrong(file, e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
                .build()
                .map_err(|e| wrong(file, e))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| wrong(&files[1], e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

impl Tls {
    /// Reads the files, and reads them again when they have changed.
    pub fn load(files: TlsFiles) -> Result<Tls> {
        let TlsFiles { certificates, key, client_authorities } = files;
        let files = [certificates, key].into_iter().chain(client_authorities).collect();
        Ok(Tls { config: Arc::new(Reloaded::load(files, config)?) })
    }

    pub(crate) fn reload_if_changed(&self) {
        self.config.reload_if_changed();
    }

    /// The connections that come, once both ends agree. One that is slow or no TLS keeps nobody else waiting.
    pub(crate) fn incoming(self, listener: TcpListener) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
        let (sender, mut receiver) = mpsc::channel(1);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        tokio::spawn(async move {
            loop {
                // It is never closed.
                let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = sender.closed() => return,
                };
                let (stream, from) = match accepted {
                    Ok(accepted) => accepted,
                    Err(e) => {
                        tracing::warn!("a connection is not taken: {e}");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                };
                // An answer is not kept back for more.
                let _ = stream.set_nodelay(true);
                let acceptor = TlsAcceptor::from(self.config.current().1.as_ref().clone());
                let sender = sender.clone();
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        // If nobody takes it any more, the server ends.
                        Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
                        Ok(Err(e)) => tracing::debug!("from {from}: no TLS connection: {e}"),
                        Err(_) => tracing::debug!("from {from}: no TLS connection within {HANDSHAKE:?}"),
                    }
                    drop(permit);
                });
            }
        });
        poll_fn(move |context| receiver.poll_recv(context))
    }
}
