//! Statements of what is kept, and what owners want kept: two chains of
//! create-only objects, of which the newest counts.

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use quire_bucket::{Bucket, Created, Key, Object, keys};
use quire_proto::{Error, Lsn, Result, Retention, Stated, Statement, VolumeName};

/// What is kept by the newest statement; all, if there is none.
pub(crate) async fn newest(bucket: &Bucket, volume: &VolumeName) -> Result<Statement> {
    let prefix = keys::statements_prefix(volume);
    match newest_of(bucket, &prefix, keys::number_of_statement, |number| keys::statement(volume, number)).await? {
        Some((_, key, object)) => decode(&key, &object),
        None => Ok(Statement::all()),
    }
}

/// All statements, the newest first.
pub(crate) fn all(bucket: &Bucket, volume: &VolumeName) -> BoxStream<'static, Result<Stated>> {
    let bucket = bucket.clone();
    let listed = bucket.list(&keys::statements_prefix(volume));
    let read = move |meta: quire_bucket::Meta| {
        let bucket = bucket.clone();
        async move {
            let Some(number) = keys::number_of_statement(&meta.key) else { return Ok(None) };
            let object = bucket.get(&meta.key).await?;
            let statement = decode(&meta.key, &object)?;
            Ok(Some(Stated { number: number.get(), stored_ms: object.last_modified_ms, statement }))
        }
    };
    listed.and_then(read).try_filter_map(|stated| async { Ok(stated) }).boxed()
}

/// Publishes a statement; `false` if another one has its number.
pub(crate) async fn publish(bucket: &Bucket, volume: &VolumeName, number: u64, statement: &Statement) -> Result<bool> {
    create(bucket, &keys::statement(volume, Lsn::try_new(number)?), statement.encode()).await
}

/// What the owner wants kept, and how often he has said so.
pub(crate) async fn retention(bucket: &Bucket, volume: &VolumeName) -> Result<(u64, Retention)> {
    let prefix = keys::retentions_prefix(volume);
    match newest_of(bucket, &prefix, keys::number_of_retention, |number| keys::retention(volume, number)).await? {
        Some((number, key, object)) => {
            let retention = Retention::decode(&object.bytes).map_err(|e| e.context(format_args!("object {key}")))?;
            Ok((number.get(), retention))
        }
        None => Ok((0, Retention::default())),
    }
}

/// Says what to keep; `false` if somebody else had that number.
pub(crate) async fn retain(bucket: &Bucket, volume: &VolumeName, number: u64, retention: &Retention) -> Result<bool> {
    create(bucket, &keys::retention(volume, Lsn::try_new(number)?), retention.encode()).await
}

fn decode(key: &Key, object: &Object) -> Result<Statement> {
    Statement::decode(&object.bytes).map_err(|e| {
        let newer = e.remedy().is_some();
        let e = e.context(format_args!("statement {key}"));
        match newer {
            true => e,
            false => e.with_remedy("Restore the object if the store keeps versions or a copy: it says what is kept."),
        }
    })
}

async fn newest_of(
    bucket: &Bucket,
    prefix: &Key,
    number: fn(&Key) -> Option<Lsn>,
    key: impl Fn(Lsn) -> Key,
) -> Result<Option<(Lsn, Key, Object)>> {
    let Some(meta) = bucket.list_first(prefix, 1).await?.pop() else { return Ok(None) };
    let number = number(&meta.key).ok_or_else(|| {
        Error::corrupt(format!("object {} is not Quire's", meta.key)).with_remedy("Move it out of the volume's folder.")
    })?;
    let key = key(number);
    let object = bucket.get(&key).await?;
    Ok(Some((number, key, object)))
}

async fn create(bucket: &Bucket, key: &Key, object: Vec<u8>) -> Result<bool> {
    Ok(bucket.create(key, Bytes::from(object)).await? == Created::Won)
}
