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

/// What is done before a request.
type Work = Box<dyn FnMut() + Send>;
/// Which request is meant: by its number, from 1 on, what it is, and of which object or prefix.
type IsMeant = Box<dyn Fn(usize, &str, &str) -> bool + Send>;

/// What went over a line, and where it is cut.
#[derive(Default)]
pub struct Line {
    requests: Mutex<Vec<(&'static str, String)>>,
    /// The request at which it is cut, from 1 on; 0 is never.
    cut_at: AtomicUsize,
    /// Whether that one still reaches the store.
    cut_after: bool,
    /// What is done before the first requests that are meant, and before how many.
    before: Mutex<Option<(usize, IsMeant, Work)>>,
}

impl Line {
    pub fn whole() -> Line {
        Line::default()
    }

    /// A line that is cut at a request, as if the program were killed there.
    pub fn cut(at: usize, after: bool) -> Line {
        Line { cut_at: at.into(), cut_after: after, ..Line::default() }
    }

    /// A line on which the first requests that are meant, `times` of them, wait until some work is done.
    pub fn before(
        times: usize,
        is_meant: impl Fn(usize, &str, &str) -> bool + Send + 'static,
        work: impl FnMut() + Send + 'static,
    ) -> Line {
        Line { before: Mutex::new(Some((times, Box::new(is_meant), Box::new(work)))), ..Line::default() }
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
            hedge: None,
        };
        bucket.through(LIMITS, |below| Arc::new(Layer { line: self.clone(), below }))
    }

    /// Passes a request; an error if the line is cut before it. Says whether it is cut after it.
    fn pass(&self, what: &'static str, path: impl fmt::Display) -> Result<bool> {
        let key = path.to_string();
        let number = {
            let mut requests = self.requests.lock();
            requests.push((what, key.clone()));
            requests.len()
        };
        let waiting = self.before.lock().take_if(|(_, is_meant, _)| is_meant(number, what, &key));
        if let Some((times, is_meant, mut work)) = waiting {
            // On a thread of its own, as it waits for futures.
            std::thread::scope(|scope| scope.spawn(&mut work).join().unwrap());
            if times > 1 {
                *self.before.lock() = Some((times - 1, is_meant, work));
            }
        }
        let cut_at = self.cut_at.load(SeqCst);
        match number {
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
