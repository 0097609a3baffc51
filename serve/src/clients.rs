//! Who is connected.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Extensions;
use parking_lot::Mutex;
use quire_proto::wire::ClientInfo;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use crate::care::now_ms;

/// Who has not called for so long, and waits for nothing, is taken to have gone: connections end without a word.
const GONE_AFTER_MS: u64 = 300_000;
/// So many are known at most.
const MOST_CLIENTS: usize = 10_000;

/// Those who have called lately. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Clients {
    known: Arc<Mutex<HashMap<SocketAddr, Arc<Client>>>>,
}

/// One connection.
pub(crate) struct Client {
    first_ms: u64,
    last_ms: AtomicU64,
    calls: AtomicU64,
    in_flight: AtomicU64,
    subject: Mutex<String>,
}

/// A call that has not ended.
pub(crate) struct CallFrom(Arc<Client>);

impl Client {
    /// The token of a call has said who it is.
    pub(crate) fn is(&self, subject: &str) {
        let mut known = self.subject.lock();
        if *known != subject {
            subject.clone_into(&mut known);
        }
    }

    fn has_gone(&self, now_ms: u64) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
            && now_ms.saturating_sub(self.last_ms.load(Ordering::Relaxed)) > GONE_AFTER_MS
    }
}

impl Clients {
    /// A call has come. Whoever lets it in finds its client in the extensions.
    pub(crate) fn calls(&self, extensions: &mut Extensions) -> Option<CallFrom> {
        let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>().and_then(|info| info.get_ref().remote_addr());
        let address = tls.or_else(|| extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr))?;
        let client = self.client(address, now_ms());
        extensions.insert(client.clone());
        Some(CallFrom(client))
    }

    fn client(&self, address: SocketAddr, now_ms: u64) -> Arc<Client> {
        let mut known = self.known.lock();
        if known.len() >= MOST_CLIENTS && !known.contains_key(&address) {
            known.retain(|_, client| !client.has_gone(now_ms));
            if known.len() >= MOST_CLIENTS {
                known.retain(|_, client| client.in_flight.load(Ordering::Relaxed) > 0);
            }
        }
        let is_full = known.len() >= MOST_CLIENTS;
        let new = || {
            let (last_ms, calls, in_flight) = (AtomicU64::new(now_ms), AtomicU64::new(0), AtomicU64::new(0));
            Arc::new(Client { first_ms: now_ms, last_ms, calls, in_flight, subject: Mutex::default() })
        };
        let client = match known.get(&address) {
            Some(client) => client.clone(),
            None if is_full => new(),
            None => known.entry(address).or_insert_with(new).clone(),
        };
        client.last_ms.store(now_ms, Ordering::Relaxed);
        client.calls.fetch_add(1, Ordering::Relaxed);
        client.in_flight.fetch_add(1, Ordering::Relaxed);
        client
    }

    /// Who called last comes first.
    pub(crate) fn list(&self) -> Vec<ClientInfo> {
        let now_ms = now_ms();
        let mut known = self.known.lock();
        known.retain(|_, client| !client.has_gone(now_ms));
        let mut list: Vec<ClientInfo> = known
            .iter()
            .map(|(address, client)| ClientInfo {
                address: address.to_string(),
                subject: client.subject.lock().clone(),
                first_seen_ms: client.first_ms,
                last_seen_ms: client.last_ms.load(Ordering::Relaxed),
                calls: client.calls.load(Ordering::Relaxed),
                calls_in_flight: client.in_flight.load(Ordering::Relaxed),
            })
            .collect();
        list.sort_unstable_by_key(|client| std::cmp::Reverse(client.last_seen_ms));
        list
    }
}

impl Drop for CallFrom {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> SocketAddr {
        ([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 7).into()
    }

    #[test]
    fn who_waits_is_there_however_long_it_waits_and_others_are_forgotten() {
        let clients = Clients::default();
        let long_ago = now_ms() - 2 * GONE_AFTER_MS;
        let waits = CallFrom(clients.client(address(1), long_ago));
        drop(CallFrom(clients.client(address(2), long_ago)));
        drop(CallFrom(clients.client(address(3), now_ms())));
        waits.0.is("ada");
        let list = clients.list();
        let seen: Vec<_> = list.iter().map(|client| (client.subject.as_str(), client.calls_in_flight)).collect();
        assert_eq!(seen, [("", 0), ("ada", 1)]);
        drop(waits);
        assert_eq!(clients.list().len(), 1);
    }

    #[test]
    fn however_many_there_are_memory_is_bounded() {
        let clients = Clients::default();
        let there: Vec<_> =
            (0..MOST_CLIENTS as u32 + 10).map(|n| CallFrom(clients.client(address(n), now_ms()))).collect();
        assert_eq!(clients.list().len(), MOST_CLIENTS);
        drop(there);
        drop(CallFrom(clients.client(address(1 << 20), now_ms())));
        assert_eq!(clients.list().len(), 1);
    }
}
