//! How much may be written.

use async_trait::async_trait;

use crate::{Result, VolumeName};

/// Says whether more may be written to a volume, before it is.
#[async_trait]
pub trait Allowance: Send + Sync + 'static {
    /// Takes so many bytes of what the volume has left; `Full` if that is not enough, and nothing is taken then.
    async fn take(&self, volume: &VolumeName, bytes: u64) -> Result<()>;

    /// Gives back what was taken and not written after all.
    fn give_back(&self, volume: &VolumeName, bytes: u64);
}
