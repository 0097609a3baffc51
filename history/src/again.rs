//! Writing a checkpoint in somebody's stead, who wanted to and has not come back.

use quire_proto::{
    CheckpointInfo, CheckpointPlace, CheckpointWriter, CommitHeader, Error, ObjectHash, Result, VolumeName,
    encode_index_frame,
};

use crate::Reader;
use crate::index::Index;
use crate::write::checkpoint;

/// Makes a certain checkpoint of the snapshot that a commit of `volume` made, unless it is there: of generation 0 by
/// reading the log, of a higher one with the content of the newest one there is.
pub async fn checkpoint_again(
    reader: &Reader,
    volume: &VolumeName,
    head: &CommitHeader,
    generation: u32,
) -> Result<()> {
    if generation == 0 {
        return checkpoint(reader, volume, head, &[]).await.map(|_| ());
    }
    let index = Index::in_force(reader, volume, head.lsn).await?.filter(|index| index.info().commit == head.hash());
    let Some(index) = index else {
        return Err(Error::corrupt(format!("volume {volume} has no sound checkpoint of LSN {}", head.lsn)));
    };
    if index.info().generation >= generation {
        return Ok(());
    }
    let inputs = ObjectHash::of(index.head().hash().as_bytes());
    let info = CheckpointInfo { generation, inputs, ..index.info().clone() };
    let page_size = info.page_size;
    let mut writer = CheckpointWriter::new(info);
    for place in index.head().leaves() {
        index.leaf(reader, &place).await?.runs().try_for_each(|run| writer.push(run))?;
        index.forget(&place);
    }
    let boot = index.boot_pages()?.into_iter().map(|frame| encode_index_frame(&frame.pages, page_size, &frame.data));
    let boot = boot.collect::<Result<Vec<_>>>()?;
    let object = writer.finish(index.segments(reader).await?, &boot)?;
    reader.metastore().put_checkpoint(volume, CheckpointPlace { lsn: head.lsn, generation }, object).await
}
