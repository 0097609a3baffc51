//! The line to a store: it notes each request, and can be cut at one.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // helpers of tests; no test file uses all of them

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use quire_bucket::{Bucket, Limits};

/// What is done before a write of an object.
type BeforePut = Box<dyn FnOnce() + Send>;

/// What went over a line, and where it is cut.
#[derive(Default)]
pub struct Line {
    requests: Mutex<Vec<(&'static str, String)>>,
    /// The request at which it is cut, from 1 on; 0 is never.
    cut_at: AtomicUsize,
    /// Whether that one still reaches the store.
    cut_after: bool,
    /// What is done once, before the first write of an object whose key has this in it.
    before_put: Mutex<Option<(&'static str, BeforePut)>>,
}

impl Line {
    pub fn whole() -> Line {
        Line::default()
    }

    /// A line that is cut at a request, as if the program were killed there.
    pub fn cut(at: usize, after: bool) -> Line {
        Line { cut_at: at.into(), cut_after: after, ..Line::default() }
    }

    pub fn before_put(part: &'static str, work: impl FnOnce() + Send + 'static) -> Line {
        Line { before_put: Mutex::new(Some((part, Box::new(work)))), ..Line::default() }
    }

    /// The requests so far: what, and of which object or prefix.
    pub fn requests(&self) -> Vec<(&'static str, String)> {
        self.requests.lock().clone()
    }

    /// The store, over this line.
    pub fn to(self: &Arc<Self>, bucket: &Bucket) -> Bucket {
        const LIMITS: Limits = Limits {
            deadline: Duration::ZERO,
            connect_deadline: Duration::ZERO,
            attempt: Duration::from_secs(3600),
            first_pause: Duration::ZERO,
        };
        bucket.through(LIMITS, |below| Arc::new(Layer { line: self.clone(), below }))
    }

    /// Passes a request; an error if the line is cut before it. Says whether it is cut after it.
    fn pass(&self, what: &'static str, path: impl fmt::Display) -> Result<bool> {
        let mut requests = self.requests.lock();
        requests.push((what, path.to_string()));
        let cut_at = self.cut_at.load(SeqCst);
        match requests.len() {
            n if cut_at == 0 || n < cut_at => Ok(false),
            n if n == cut_at && self.cut_after => Ok(true),
            _ => Err(cut()),
        }
    }
}

fn cut() -> Error {
    Error::Generic { store: "line", source: "the line is cut".into() }
}

struct Layer {
    line: Arc<Line>,
    below: Arc<dyn ObjectStore>,
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("line")
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("line")
    }
}

#[async_trait]
impl ObjectStore for Layer {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let work = {
            let mut waiting = self.line.before_put.lock();
            let is_meant = waiting.as_ref().is_some_and(|(part, _)| path.as_ref().contains(part));
            if is_meant { waiting.take() } else { None }
        };
        if let Some((_, work)) = work {
            tokio::task::spawn_blocking(work).await.unwrap();
        }
        let lost = self.line.pass("put", path)?;
        let put = self.below.put_opts(path, payload, options).await;
        if lost { Err(cut()) } else { put }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let lost = self.line.pass("put", path)?;
        let upload = self.below.put_multipart_opts(path, options).await;
        if lost { Err(cut()) } else { upload }
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let lost = self.line.pass("get", path)?;
        let got = self.below.get_opts(path, options).await;
        if lost { Err(cut()) } else { got }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.line.pass("delete", "") {
            Ok(false) => self.below.delete_stream(paths),
            Ok(true) => {
                let done = self.below.delete_stream(paths);
                done.map(|_| Err(cut())).boxed()
            }
            Err(e) => stream::iter([Err(e)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.line.pass("list", prefix.cloned().unwrap_or_default()) {
            Ok(false) => self.below.list(prefix),
            Ok(true) | Err(_) => stream::iter([Err(cut())]).boxed(),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.line.pass("list", prefix.cloned().unwrap_or_default()) {
            Ok(false) => self.below.list_with_offset(prefix, offset),
            Ok(true) | Err(_) => stream::iter([Err(cut())]).into_stream().boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let lost = self.line.pass("list", prefix.cloned().unwrap_or_default())?;
        let listed = self.below.list_with_delimiter(prefix).await;
        if lost { Err(cut()) } else { listed }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.below.copy_opts(from, to, options).await
    }
}
