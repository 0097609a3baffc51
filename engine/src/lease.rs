//! Snapshots of the past that stay open. Without a word their readers have the grace of a collector, from when a
//! statement lets the snapshot go; so whoever reads for longer leases it, and says it again as long as he reads.

use std::sync::{Arc, Weak};
use std::time::Duration;

use quire_proto::{ErrorKind, Marker, MarkerTarget, Result};

use crate::engine::Shared;
use crate::state::BaseState;
use crate::volume::Open;

/// For how long the store is told.
const SPAN: Duration = Duration::from_secs(2 * 3600);
/// How often: a few times may fail.
const AGAIN_AFTER: Duration = Duration::from_secs(20 * 60);

/// Leases a snapshot as long as it is open.
pub(crate) fn keep(shared: &Arc<Shared>, open: &Arc<Open>, base: BaseState) {
    let (engine, open) = (Arc::downgrade(shared), Arc::downgrade(open));
    let after = shared.lease_after();
    shared.bridge.spawn(async move {
        let mut pause = after;
        loop {
            tokio::time::sleep(pause).await;
            pause = AGAIN_AFTER;
            let Some(engine) = while_open(&engine, &open) else { return };
            match lease(&engine, &base).await {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Gone => {
                    tracing::warn!("{e}; whoever has it open can read it for the grace of the collector");
                    return;
                }
                Err(e) => tracing::warn!("LSN {} of volume {} is not leased: {e}", base.lsn, base.volume),
            }
        }
    });
}

/// The engine, if the snapshot is still open.
fn while_open(engine: &Weak<Shared>, open: &Weak<Open>) -> Option<Arc<Shared>> {
    if open.strong_count() == 0 { None } else { engine.upgrade() }
}

async fn lease(engine: &Shared, base: &BaseState) -> Result<()> {
    let target = MarkerTarget::Reader { span_ms: SPAN.as_millis() as u64, author: engine.author().to_owned() };
    let marker = Marker { base: (base.volume.clone(), base.lsn, base.hash), target };
    engine.stores().await?.metastore.mark(&marker).await
}
