//! How many pages of a set belong to whom.

use std::collections::BTreeMap;

use quire_proto::PageSet;

use crate::{ObjectKind, Owner, Owners, Schema};

/// How many of the pages that were asked for belong to one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// `table`, `index`, `schema`, `free`, or `other` where it could not be found out.
    pub kind: &'static str,
    /// The name of a table or an index.
    pub name: Option<String>,
    /// The table that an index belongs to.
    pub table: Option<String>,
    /// How many pages.
    pub pages: u64,
}

/// The shares of all owners so far.
#[derive(Debug, Default)]
pub struct Shares(BTreeMap<(&'static str, Option<String>), Share>);

impl Shares {
    /// Counts whose the pages of `among` are; returns those of which that is not known.
    pub fn add(&mut self, owners: &Owners, schema: &Schema, among: &PageSet) -> PageSet {
        let mut unplaced = PageSet::new();
        for run in owners.runs(among) {
            let (first, last) = (run.first.get(), run.last.get());
            let (kind, name, table) = match run.owner {
                Owner::BTree { object, .. } => {
                    let object = &schema.objects[object];
                    match object.kind {
                        ObjectKind::Table => ("table", Some(object.name.clone()), None),
                        ObjectKind::Index => ("index", Some(object.name.clone()), Some(object.table.clone())),
                    }
                }
                Owner::Schema => ("schema", None, None),
                Owner::Freelist => ("free", None, None),
                Owner::PointerMap | Owner::LockByte | Owner::Unknown => {
                    unplaced.insert_range(first, last);
                    continue;
                }
            };
            self.count(kind, name, table, u64::from(last - first) + 1);
        }
        unplaced
    }

    /// Counts pages whose owner is not known.
    pub fn add_other(&mut self, pages: &PageSet) {
        if !pages.is_empty() {
            self.count("other", None, None, pages.len());
        }
    }

    /// The shares, the largest first.
    pub fn into_vec(self) -> Vec<Share> {
        let mut shares: Vec<Share> = self.0.into_values().collect();
        shares.sort_by(|a, b| b.pages.cmp(&a.pages).then_with(|| a.name.cmp(&b.name)));
        shares
    }

    fn count(&mut self, kind: &'static str, name: Option<String>, table: Option<String>, pages: u64) {
        let share = Share { kind, name: name.clone(), table, pages: 0 };
        self.0.entry((kind, name)).or_insert(share).pages += pages;
    }
}
