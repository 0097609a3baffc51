//! The names in a bucket: its folders, walked part by part. A folder that
//! holds `!` is a volume's, and may hold further volumes beside it.

use std::future::ready;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use quire_bucket::{Bucket, Key, Names, keys};
use quire_proto::{Result, VolumeName};

/// How many folders are listed at the same time.
const FOLDERS_AT_ONCE: usize = 16;

/// The names that begin with `prefix`, in order of their parts.
pub(crate) fn volumes(bucket: Bucket, prefix: String) -> BoxStream<'static, Result<VolumeName>> {
    let prefix: Arc<str> = prefix.into();
    let top = async move {
        let folder = keys::volumes_prefix(&prefix)?;
        let names = bucket.list_names(&folder).await?;
        Ok(below(bucket, prefix, names))
    };
    stream::once(top).try_flatten().boxed()
}

enum Found {
    Volume(VolumeName),
    Folder(Names),
}

fn below(bucket: Bucket, prefix: Arc<str>, names: Names) -> BoxStream<'static, Result<VolumeName>> {
    let mut folders = names.folders;
    folders.retain(|folder| name_of(folder).is_some_and(|name| name.as_str().starts_with(&*prefix)));
    folders.sort();
    let lister = bucket.clone();
    stream::iter(folders)
        .map(move |folder| {
            let bucket = lister.clone();
            async move {
                match keys::volume_of(&folder) {
                    Some(volume) => Ok(Found::Volume(volume)),
                    None => bucket.list_names(&folder).await.map(Found::Folder),
                }
            }
        })
        .buffered(FOLDERS_AT_ONCE)
        .map_ok(move |found| match found {
            Found::Volume(volume) => stream::once(ready(Ok(volume))).boxed(),
            Found::Folder(names) => below(bucket.clone(), prefix.clone(), names),
        })
        .try_flatten()
        .boxed()
}

/// The name that a volume's folder stands for, or that a folder of volumes
/// begins; `None` for folders that Quire did not make.
fn name_of(folder: &Key) -> Option<VolumeName> {
    keys::volume_of(folder).or_else(|| VolumeName::decode(folder.as_str().strip_prefix("v/")?).ok())
}
