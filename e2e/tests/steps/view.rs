//! What can be seen of a world.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use quire_e2e::{Content, Machine, World, content_in, files_below, text_of};

use crate::case::Case;

/// What volumes hold. One without any content is not there.
pub(crate) type Holding = BTreeMap<&'static str, Content>;

/// What volumes hold here, and for somebody who has never seen them.
#[derive(Clone, PartialEq)]
pub(crate) struct View {
    pub(crate) here: Holding,
    pub(crate) in_store: Holding,
}

impl View {
    pub(crate) fn of(case: &Case, world: &World) -> View {
        let machine = case.machine(world);
        let rows = case.status(world);
        let is_here = |volume: &&str| rows.iter().any(|row| row["name"] == **volume);
        let here: Vec<&'static str> = case.volumes.iter().copied().filter(is_here).collect();
        let here = holding(world, &machine, &here);
        let fresh = world.machine("fresh");
        let in_store = holding(world, &fresh, case.volumes);
        std::fs::remove_dir_all(fresh.data_dir()).unwrap();
        View { here, in_store }
    }
}

/// Briefly: what is there, and whether it is the same.
impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, holding) in [("here:", &self.here), (" in the store:", &self.in_store)] {
            f.write_str(place)?;
            for (volume, content) in holding {
                let mut hasher = DefaultHasher::new();
                content.hash(&mut hasher);
                let rows: u64 =
                    content.iter().filter(|(name, _)| name.starts_with("table")).map(|(_, (rows, _))| rows).sum();
                write!(f, " {volume} ({rows} rows, {:x})", hasher.finish())?;
            }
        }
        Ok(())
    }
}

fn holding(world: &World, machine: &Machine<'_>, volumes: &[&'static str]) -> Holding {
    let (files, databases): (Vec<&str>, Vec<&str>) = volumes.iter().partition(|volume| volume.starts_with("file"));
    let mut holding = Holding::new();
    if let Some(first) = databases.first() {
        let mut app = machine.app(first);
        for (n, volume) in databases.into_iter().enumerate() {
            let schema = if n == 0 { "main".to_owned() } else { format!("volume{n}") };
            if n > 0 {
                app.sql(&format!("ATTACH 'file:{volume}?vfs=quire' AS {schema}"));
            }
            let content = content_in(&mut app, &schema);
            if content["schema"].0 > 0 {
                holding.insert(volume, content);
            }
        }
        app.finish();
    }
    for volume in files {
        let copy = world.path("seen");
        let ended = machine.run(&["export", volume, text_of(&copy)]);
        if ended.status == Some(0) {
            let bytes = std::fs::read(&copy).unwrap();
            std::fs::remove_file(&copy).unwrap();
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            if !bytes.is_empty() {
                holding.insert(volume, Content::from([("bytes".to_owned(), (bytes.len() as u64, hasher.finish()))]));
            }
        } else {
            ended.failed(1, "there is no volume");
        }
    }
    holding
}

/// How many files of each kind there are below a folder.
pub(crate) fn kinds(folder: &Path) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for file in files_below(folder) {
        let path = text_of(file.strip_prefix(folder).unwrap());
        // Numbers tell nothing about the kind; a temporary file has one behind a '#'.
        let is_number = |part: &str| part.len() >= 3 && part.chars().all(|c| c.is_ascii_hexdigit()) || part.len() == 26;
        let parts = path.split('/').map(|part| {
            let (name, rest) = part.split_at(part.find(['.', '#']).unwrap_or(part.len()));
            let rest = if rest.starts_with('#') { "#" } else { rest };
            format!("{}{rest}", if is_number(name) { "*" } else { name })
        });
        *kinds.entry(parts.collect::<Vec<_>>().join("/")).or_insert(0) += 1;
    }
    kinds
}
