//! The link as a layer over a store: each request passes [`Link::admit`].

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::fault::Fault;
use crate::network::{Link, Treason, interrupted, spoil};

/// With a store that forgets or hides, one of so many requests is betrayed.
const TREASON_EVERY: u64 = 20;

const WRITING: [Fault; 3] = [Fault::LostRequest, Fault::LostReply, Fault::LateWrite];
const READING: [Fault; 3] = [Fault::LostRequest, Fault::ShortBody, Fault::FlippedBody];
const LOOKING: [Fault; 1] = [Fault::LostRequest];
const DELETING: [Fault; 2] = [Fault::LostRequest, Fault::LostReply];
const LISTING: [Fault; 2] = [Fault::LostRequest, Fault::LateList];

/// A link, as the bucket takes it.
#[derive(Clone, Debug)]
pub struct Layer(pub Arc<Link>);

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Layer {
    fn spoiled(&self, fault: Fault, whole: Bytes, dice: u64) -> Bytes {
        self.0.note(fault);
        spoil(fault, whole, dice)
    }

    async fn deleted(self, path: Result<Path>) -> Result<Path> {
        let (link, path) = (&self.0, path?);
        let mut pass = link.admit(&path, &DELETING).await?;
        if let Some(fault) = pass.fault {
            link.note(fault);
        }
        if pass.fault == Some(Fault::LostRequest) {
            return Err(interrupted());
        }
        let deleted =
            link.below().delete_stream(stream::iter([Ok(path.clone())]).boxed()).try_collect::<Vec<_>>().await;
        link.answer(&path, &mut pass).await?;
        if pass.fault == Some(Fault::LostReply) { Err(interrupted()) } else { deleted.map(|_| path) }
    }

    async fn listed(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let link = &self.0;
        let place = prefix.clone().unwrap_or_default();
        let mut pass = link.admit(&place, &LISTING).await?;
        if pass.fault == Some(Fault::LostRequest) {
            link.note(Fault::LostRequest);
            return Err(interrupted());
        }
        let mut metas: Vec<ObjectMeta> = link.below().list(prefix.as_ref()).try_collect().await?;
        link.answer(&place, &mut pass).await?;
        if pass.fault == Some(Fault::LateList) {
            let unlisted = link.network().newest(1 + (pass.dice % 3) as usize);
            let before = metas.len();
            metas.retain(|meta| !unlisted.contains(&meta.location));
            if metas.len() < before {
                link.note(Fault::LateList);
            }
        }
        Ok(metas)
    }
}

#[async_trait]
impl ObjectStore for Layer {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let link = &self.0;
        let mut pass = link.admit(path, &WRITING).await?;
        if let Some(fault) = pass.fault {
            link.note(fault);
        }
        match pass.fault {
            Some(Fault::LostRequest) => return Err(interrupted()),
            Some(Fault::LateWrite) => return Err(link.delay(path, payload, options.mode)),
            _ => {}
        }
        let creates = options.mode == PutMode::Create;
        let forgets = link.network().treason() == Some(Treason::Forgets) && pass.dice.is_multiple_of(TREASON_EVERY);
        let put = if forgets {
            Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
        } else {
            let mode = link.network().put_mode(options.mode.clone());
            link.below().put_opts(path, payload, PutOptions { mode, ..options }).await
        };
        if put.is_ok() && creates {
            link.network().created(path);
        }
        link.answer(path, &mut pass).await?;
        if pass.fault == Some(Fault::LostReply) { Err(interrupted()) } else { put }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let link = &self.0;
        let pass = link.admit(path, &LOOKING).await?;
        if let Some(fault) = pass.fault {
            link.note(fault);
            return Err(interrupted());
        }
        link.below().put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let link = &self.0;
        let is_head = options.head;
        let mut pass = link.admit(path, if is_head { &LOOKING } else { &READING }).await?;
        if pass.fault == Some(Fault::LostRequest) {
            link.note(Fault::LostRequest);
            return Err(interrupted());
        }
        if link.network().treason() == Some(Treason::Hides) && pass.dice.is_multiple_of(TREASON_EVERY) {
            return Err(Error::NotFound { path: path.to_string(), source: "it is hidden".into() });
        }
        let got = link.below().get_opts(path, options).await;
        link.answer(path, &mut pass).await?;
        let Some(fault) = pass.fault.filter(|_| !is_head) else { return got };
        let got = got?;
        let (meta, range, attributes, extensions) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone(), got.extensions.clone());
        let whole = got.bytes().await?;
        let bytes = if whole.is_empty() { whole } else { self.spoiled(fault, whole, pass.dice) };
        let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let layer = self.clone();
        paths.then(move |path| layer.clone().deleted(path)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (layer, prefix) = (self.clone(), prefix.cloned());
        stream::once(async move { layer.listed(prefix).await.map(|metas| stream::iter(metas).map(Ok)) })
            .try_flatten()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let link = &self.0;
        let place = prefix.cloned().unwrap_or_default();
        let mut pass = link.admit(&place, &LOOKING).await?;
        if let Some(fault) = pass.fault {
            link.note(fault);
            return Err(interrupted());
        }
        let listed = link.below().list_with_delimiter(prefix).await;
        link.answer(&place, &mut pass).await?;
        listed
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.below().copy_opts(from, to, options).await
    }
}
