//! Listings, always in key order. Stores compare keys as bytes, or part by
//! part: `a/x` before `a-/x`. Within one folder of names, which is all that
//! Quire's order relies on, both are the same.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use futures::stream::{BoxStream, try_unfold};
use futures::{StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::{ObjectMeta, ObjectStore};
use quire_proto::{Error, Result};

use crate::bucket::{Inner, meta_of};
use crate::counters::Request;
use crate::failure::Failure;
use crate::folder::{self, Walk, on_disk};
use crate::store::Listing;
use crate::{Bucket, Key, Meta};

/// Objects asked for in one page, which every cloud allows.
const PAGE_KEYS: usize = 1000;

/// What lies directly below a prefix.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The folders, in key order.
    pub folders: Vec<Key>,
    /// The objects, in key order.
    pub objects: Vec<Meta>,
}

/// A place in a listing.
struct Cursor {
    bucket: Bucket,
    prefix: Key,
    ready: VecDeque<Meta>,
    rest: Rest,
    last: Option<Key>,
}

enum Rest {
    Beginning,
    /// The next page's token.
    Page(String),
    Folder(Walk),
    End,
}

impl Bucket {
    /// All objects below `prefix`, sorted by key, fetched page by page as the
    /// stream is read.
    pub fn list(&self, prefix: &Key) -> BoxStream<'static, Result<Meta>> {
        let cursor = Cursor {
            bucket: self.clone(),
            prefix: prefix.clone(),
            ready: VecDeque::new(),
            rest: Rest::Beginning,
            last: None,
        };
        let next = |mut cursor: Cursor| async move { Ok(cursor.next().await?.map(|meta| (meta, cursor))) };
        try_unfold(cursor, next).boxed()
    }

    /// The first `n` objects below `prefix` in key order. One request on cloud
    /// stores; on a folder, the first directory and then inside it.
    pub async fn list_first(&self, prefix: &Key, n: usize) -> Result<Vec<Meta>> {
        let inner = &self.inner;
        let found = match &inner.store.listing {
            Listing::Folder(root) => {
                inner.tally.sent(Request::List);
                let (root, folder) = (root.clone(), prefix.clone());
                on_disk(&inner.what("listing", prefix), move || first_in_folder(root, &folder, n)).await?
            }
            Listing::Pages(pages) => first_in_pages(inner, pages.as_ref(), prefix, n).await?,
            Listing::Whole => {
                let mut all = inner.list_whole(prefix).await?;
                all.truncate(n);
                all
            }
        };
        if found.is_empty() {
            self.check_version().await?;
        } else {
            self.found();
        }
        Ok(found)
    }

    /// What lies directly below `prefix`, without what is inside the folders.
    pub async fn list_names(&self, prefix: &Key) -> Result<Names> {
        let inner = &self.inner;
        match &inner.store.listing {
            Listing::Folder(root) => {
                inner.tally.sent(Request::List);
                let (root, folder) = (root.clone(), prefix.clone());
                let (folders, objects) =
                    on_disk(&inner.what("listing", prefix), move || folder::names(&root, &folder)).await?;
                if folders.is_empty() && objects.is_empty() {
                    self.check_folder()?;
                }
                Ok(Names { folders, objects })
            }
            Listing::Pages(pages) => {
                let mut names = Names::default();
                let mut token = None;
                loop {
                    let page = inner.page(pages.as_ref(), prefix, Some("/"), PAGE_KEYS, token).await?;
                    inner.add_names(&mut names, page.result.common_prefixes, page.result.objects);
                    token = page.page_token;
                    if token.is_none() {
                        return Ok(names);
                    }
                }
            }
            Listing::Whole => {
                let path = inner.path(prefix)?;
                let what = &inner.what("listing", prefix);
                let listed = inner.limits.retry(&inner.tally, 0, || {
                    inner.tally.sent(Request::List);
                    let list = inner.store.objects.list_with_delimiter(Some(&path));
                    inner.limits.attempt(what, 0, async { list.await.map_err(|e| Failure::of(what, e)) })
                });
                let listed = listed.await?;
                let mut names = Names::default();
                inner.add_names(&mut names, listed.common_prefixes, listed.objects);
                names.objects.sort_by(|a, b| a.key.cmp(&b.key));
                Ok(names)
            }
        }
    }
}

impl Cursor {
    async fn next(&mut self) -> Result<Option<Meta>> {
        while self.ready.is_empty() {
            if !self.fetch().await? {
                return Ok(None);
            }
        }
        let next = self.ready.pop_front();
        if let (Some(next), Some(last)) = (&next, &self.last)
            && !in_order(last, &next.key)
        {
            return Err(Error::invalid(format!("store {} lists {} after {last}", self.bucket.url(), next.key))
                .with_remedy("Use a store that lists in the order of keys; S3 directory buckets do not."));
        }
        self.last = next.as_ref().map(|meta| meta.key.clone());
        Ok(next)
    }

    /// Fetches more; `false` at the end.
    async fn fetch(&mut self) -> Result<bool> {
        let inner = self.bucket.inner.clone();
        match (std::mem::replace(&mut self.rest, Rest::End), &inner.store.listing) {
            (Rest::End, _) => return Ok(false),
            (Rest::Folder(mut walk), _) => {
                inner.tally.sent(Request::List);
                let next = move || walk.next(PAGE_KEYS).map(|objects| (objects, walk));
                let (objects, walk) = on_disk(&inner.what("listing", &self.prefix), next).await?;
                if let Some(objects) = objects {
                    self.ready.extend(objects);
                    self.rest = Rest::Folder(walk);
                }
            }
            (_, Listing::Folder(root)) => {
                let (root, prefix) = (root.clone(), self.prefix.clone());
                let begin = move || Walk::begin(root, &prefix, usize::MAX);
                self.rest = Rest::Folder(on_disk(&inner.what("listing", &self.prefix), begin).await?);
                self.bucket.check_folder()?;
            }
            (_, Listing::Whole) => self.ready.extend(inner.list_whole(&self.prefix).await?),
            (rest, Listing::Pages(pages)) => {
                let token = if let Rest::Page(token) = rest { Some(token) } else { None };
                let page = inner.page(pages.as_ref(), &self.prefix, None, PAGE_KEYS, token).await?;
                self.ready.extend(inner.metas(page.result.objects));
                if let Some(token) = page.page_token {
                    self.rest = Rest::Page(token);
                }
            }
        }
        Ok(true)
    }
}

impl Inner {
    async fn page(
        &self,
        pages: &dyn PaginatedListStore,
        prefix: &Key,
        delimiter: Option<&'static str>,
        max_keys: usize,
        token: Option<String>,
    ) -> Result<PaginatedListResult> {
        let what = &self.what("listing", prefix);
        let path = format!("{}{prefix}/", self.store.prefix);
        let request = || {
            self.tally.sent(Request::List);
            let options = PaginatedListOptions {
                delimiter: delimiter.map(Cow::Borrowed),
                max_keys: Some(max_keys),
                page_token: token.clone(),
                ..PaginatedListOptions::default()
            };
            let list = pages.list_paginated(Some(&path), options);
            self.limits.attempt(what, 0, async { list.await.map_err(|e| Failure::of(what, e)) })
        };
        self.limits.retry(&self.tally, 0, request).await
    }

    async fn list_whole(&self, prefix: &Key) -> Result<Vec<Meta>> {
        let path = self.path(prefix)?;
        let what = &self.what("listing", prefix);
        let listed = self.limits.retry(&self.tally, 0, || {
            self.tally.sent(Request::List);
            let list = self.store.objects.list(Some(&path)).try_collect::<Vec<_>>();
            self.limits.attempt(what, 0, async { list.await.map_err(|e| Failure::of(what, e)) })
        });
        let mut metas: Vec<Meta> = self.metas(listed.await?).collect();
        metas.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(metas)
    }

    fn add_names(&self, names: &mut Names, folders: Vec<object_store::path::Path>, objects: Vec<ObjectMeta>) {
        names.folders.extend(folders.iter().filter_map(|path| self.key_of(path.as_ref())));
        names.objects.extend(self.metas(objects));
    }

    /// Objects whose names are no keys are not Quire's and are passed over.
    fn metas(&self, objects: Vec<ObjectMeta>) -> impl Iterator<Item = Meta> {
        objects.into_iter().filter_map(|meta| Some(meta_of(self.key_of(meta.location.as_ref())?, &meta)))
    }

    fn key_of(&self, path: &str) -> Option<Key> {
        Key::parse(path.strip_prefix(self.store.prefix.as_str())?).ok()
    }
}

fn in_order(a: &Key, b: &Key) -> bool {
    a < b || a.as_str().split('/').lt(b.as_str().split('/'))
}

async fn first_in_pages(inner: &Inner, pages: &dyn PaginatedListStore, prefix: &Key, n: usize) -> Result<Vec<Meta>> {
    let mut found = Vec::new();
    let mut token = None;
    // A store may cut a page short; only the missing token is the end.
    loop {
        let page = inner.page(pages, prefix, None, (n - found.len()).min(PAGE_KEYS), token).await?;
        found.extend(inner.metas(page.result.objects));
        token = page.page_token;
        if found.len() >= n || token.is_none() {
            found.truncate(n);
            return Ok(found);
        }
    }
}

fn first_in_folder(root: PathBuf, prefix: &Key, n: usize) -> io::Result<Vec<Meta>> {
    let mut walk = Walk::begin(root, prefix, n)?;
    let mut found = Vec::new();
    while found.len() < n
        && let Some(objects) = walk.next(n - found.len())?
    {
        found.extend(objects);
    }
    Ok(found)
}
