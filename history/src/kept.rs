//! What it means that something is not there.

use quire_proto::{Error, ErrorKind, Lsn, VolumeName};

use crate::Reader;

/// Compactors and collectors may move what a snapshot needs once more while it is looked for: so often it is looked for
/// in the newest index.
pub const MOST_LOOKS: u32 = 4;

/// What it means that something is not there which snapshot `lsn` needs: history may not keep it any more.
pub async fn gone_or(reader: &Reader, volume: &VolumeName, lsn: Lsn, error: Error) -> Error {
    match reader.metastore.statement(volume).await.map(|statement| statement.keeps(lsn)) {
        Ok(false) => Error::new(ErrorKind::Gone, format!("LSN {lsn} of volume {volume} is not kept any more"))
            .with_remedy("`quire pull NAME` goes to the newest snapshot; `quire export NAME` saves what is here.")
            .with_source(error),
        // It is kept, and stands on a checkpoint, as the log before it may be collected: that could not be read.
        Ok(true) if error.kind() == ErrorKind::Gone => {
            Error::corrupt(format!("LSN {lsn} of volume {volume} is kept, and its checkpoint is damaged or not there"))
                .with_remedy(format!("`quire verify {volume}` says what is damaged, and what can still be read."))
                .with_source(error)
        }
        // It is kept: then this is damage.
        Ok(true) => error,
        Err(e) => e.context(format_args!("{error}, and whether LSN {lsn} of volume {volume} is kept was not answered")),
    }
}
