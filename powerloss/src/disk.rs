//! A disk that replays a recording.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::event::Event;
use crate::file::Content;
use crate::folders::{Entry, Folders, Names, Node};
use crate::image::{Image, Mood};

/// What a program has asked of its disk so far, and how much of it is safe.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// `None` is a folder; the first is the one at the top.
    nodes: Vec<Option<Content>>,
    folders: Folders,
    open: HashMap<u32, Node>,
}

impl Disk {
    /// A disk that holds an image, safely.
    pub fn new(image: &Image) -> Disk {
        let mut disk = Disk { nodes: vec![None], ..Disk::default() };
        let mut names = Names::new();
        let mut folders = HashMap::from([(PathBuf::new(), 0)]);
        for (path, bytes) in &image.entries {
            let node = disk.add(bytes.clone().map(Content::of));
            if let (Some(above), Some(name)) = (path.parent().and_then(|above| folders.get(above)), path.file_name()) {
                names.insert((*above, name.to_owned()), node);
            }
            if bytes.is_none() {
                folders.insert(path.clone(), node);
            }
        }
        disk.folders = Folders::of(names);
        disk
    }

    fn add(&mut self, content: Option<Content>) -> Node {
        self.nodes.push(content);
        self.nodes.len() - 1
    }

    /// Replays one event. Those that cannot have happened here say why: the
    /// recording is of another folder, or something went past the recorder.
    pub fn replay(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Started => self.open.clear(),
            Event::Opened { fd, path, create, truncate } => {
                let node = match self.folders.find(path) {
                    Some(node) => node,
                    None if *create => {
                        let node = self.add(Some(Content::default()));
                        self.change(path, Some(node), None)?;
                        node
                    }
                    None => return Err(format!("{} was opened, and is not there", path.display())),
                };
                self.open.insert(*fd, node);
                if *truncate {
                    self.file(*fd)?.resize(0);
                }
            }
            Event::Closed { fd } => {
                self.open.remove(fd);
            }
            Event::Duplicated { fd, from } => {
                let node = self.node(*from)?;
                self.open.insert(*fd, node);
            }
            Event::Wrote { fd, offset, bytes } => self.file(*fd)?.write(place(*offset)?, bytes.clone()),
            Event::Resized { fd, len } => self.file(*fd)?.resize(place(*len)?),
            Event::Reserved { fd, end } => self.file(*fd)?.reserve(place(*end)?),
            Event::Synced { fd } => {
                let node = self.node(*fd)?;
                match &mut self.nodes[node] {
                    Some(content) => content.sync(),
                    None => self.folders.sync(node),
                }
            }
            Event::MadeFolder { path } => {
                let node = self.add(None);
                self.change(path, Some(node), None)?;
            }
            Event::RemovedFolder { path } | Event::Unlinked { path } => self.change(path, None, None)?,
            Event::Linked { path, from } => {
                let node = self.find(from)?;
                self.change(path, Some(node), None)?;
            }
            Event::Renamed { path, from } => {
                let node = self.find(from)?;
                self.change(path, Some(node), Some(from))?;
            }
            Event::Said { .. } => {}
        }
        Ok(())
    }

    /// Whether a descriptor leads to a folder.
    pub fn is_folder(&self, fd: u32) -> bool {
        self.open.get(&fd).is_some_and(|node| self.nodes[*node].is_none())
    }

    /// What the program itself sees.
    pub fn current(&self) -> Image {
        self.image_of(self.folders.current(), |_, content| content.current())
    }

    /// What the disk might hold if the power went now. Folders at the top that
    /// are `spared` are those of another machine, and lose nothing.
    pub fn after_power_loss(&self, spared: &[&str], rng: &mut StdRng) -> Image {
        let is_on_top =
            |(folder, name): &Entry| *folder == 0 && spared.iter().any(|spared| *spared == name.as_os_str());
        let mut safe = BTreeSet::new();
        let on_top = self.folders.current().iter().filter(|(entry, _)| is_on_top(entry));
        let mut open: Vec<Node> = on_top.map(|(_, node)| *node).collect();
        while let Some(folder) = open.pop() {
            safe.insert(folder);
            open.extend(self.folders.current().range((folder, "".into())..(folder + 1, "".into())).map(|(_, n)| *n));
        }
        let common = rng.random_bool(0.5).then(|| Mood::random(rng));
        let mood = |rng: &mut StdRng| common.unwrap_or_else(|| Mood::random(rng));
        let is_spared = |entry: &Entry| safe.contains(&entry.0) || is_on_top(entry);
        let names = self.folders.after_power_loss(is_spared, mood(rng), rng);
        self.image_of(&names, |node, content| {
            if safe.contains(&node) { content.current() } else { content.after_power_loss(mood(rng), rng) }
        })
    }

    fn image_of(&self, names: &Names, mut bytes: impl FnMut(Node, &Content) -> Vec<u8>) -> Image {
        let mut image = Image::default();
        // A file with two names is one file.
        let mut known: HashMap<Node, Vec<u8>> = HashMap::new();
        let mut open = vec![(0, PathBuf::new())];
        while let Some((folder, path)) = open.pop() {
            for ((_, name), node) in names.range((folder, "".into())..(folder + 1, "".into())) {
                let path = path.join(name);
                match &self.nodes[*node] {
                    Some(content) => {
                        let bytes = known.entry(*node).or_insert_with(|| bytes(*node, content));
                        image.entries.insert(path, Some(bytes.clone()));
                    }
                    None => {
                        image.entries.insert(path.clone(), None);
                        open.push((*node, path));
                    }
                }
            }
        }
        image
    }

    fn change(&mut self, path: &Path, node: Option<Node>, from: Option<&Path>) -> Result<(), String> {
        let entry = |path: &Path| {
            self.folders.entry(path).ok_or_else(|| format!("the folder of {} is not there", path.display()))
        };
        let mut change = Vec::new();
        if let Some(from) = from {
            change.push((entry(from)?, None));
        }
        change.push((entry(path)?, node));
        self.folders.change(change);
        Ok(())
    }

    fn find(&self, path: &Path) -> Result<Node, String> {
        self.folders.find(path).ok_or_else(|| format!("{} is not there", path.display()))
    }

    fn node(&self, fd: u32) -> Result<Node, String> {
        self.open.get(&fd).copied().ok_or_else(|| format!("descriptor {fd} is not open"))
    }

    fn file(&mut self, fd: u32) -> Result<&mut Content, String> {
        let node = self.node(fd)?;
        self.nodes[node].as_mut().ok_or_else(|| format!("descriptor {fd} is a folder"))
    }
}

fn place(offset: u64) -> Result<usize, String> {
    usize::try_from(offset).map_err(|e| format!("offset {offset}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn opened(fd: u32, path: &str) -> Event {
        Event::Opened { fd, path: path.into(), create: true, truncate: false }
    }

    fn wrote(fd: u32, bytes: &str) -> Event {
        Event::Wrote { fd, offset: 0, bytes: bytes.into() }
    }

    fn disk(events: &[Event]) -> Disk {
        let mut disk = Disk::new(&Image::default());
        events.iter().for_each(|event| disk.replay(event).unwrap());
        disk
    }

    /// All that can be left, as far as many attempts show, as text.
    fn outcomes(disk: &Disk, spared: &[&str]) -> BTreeSet<String> {
        let mut rng = StdRng::seed_from_u64(1);
        (0..2000).map(|_| text(&disk.after_power_loss(spared, &mut rng))).collect()
    }

    fn text(image: &Image) -> String {
        let show = |(path, bytes): (&PathBuf, &Option<Vec<u8>>)| match bytes {
            None => format!("{}/", path.display()),
            Some(bytes) => format!("{}={}", path.display(), String::from_utf8_lossy(bytes)),
        };
        image.entries.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    fn set<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
        texts.map(str::to_owned).into()
    }

    #[test]
    fn a_synced_file_without_a_synced_name_may_be_gone_and_the_other_way_round() {
        let file_only = [opened(3, "a"), wrote(3, "x"), Event::Synced { fd: 3 }];
        assert_eq!(outcomes(&disk(&file_only), &[]), set(["", "a=x"]));
        let name_only = [opened(3, "a"), wrote(3, "x"), opened(4, ""), Event::Synced { fd: 4 }];
        assert_eq!(outcomes(&disk(&name_only), &[]), set(["a=", "a=\0", "a=x"]));
    }

    #[test]
    fn a_rename_may_be_there_before_the_bytes_of_the_file() {
        let mut events = vec![opened(3, "f"), wrote(3, "1"), Event::Synced { fd: 3 }, opened(4, "")];
        events.extend([Event::Synced { fd: 4 }, opened(5, "g"), wrote(5, "2")]);
        events.push(Event::Renamed { path: "f".into(), from: "g".into() });
        let expected = ["f=1", "f=1 g=", "f=1 g=\0", "f=1 g=2", "f=", "f=\0", "f=2"];
        assert_eq!(outcomes(&disk(&events), &[]), set(expected));
    }

    #[test]
    fn what_is_in_a_lost_folder_is_lost_although_it_was_synced() {
        let events = [
            Event::MadeFolder { path: "d".into() },
            opened(3, "d/a"),
            wrote(3, "x"),
            Event::Synced { fd: 3 },
            opened(4, "d"),
            Event::Synced { fd: 4 },
        ];
        assert_eq!(outcomes(&disk(&events), &[]), set(["", "d/ d/a=x"]));
    }

    #[test]
    fn a_file_with_two_names_is_one_file() {
        let mut events = vec![opened(3, "a"), Event::Linked { path: "b".into(), from: "a".into() }];
        events.extend([Event::Unlinked { path: "a".into() }, wrote(3, "x"), Event::Synced { fd: 3 }]);
        events.extend([Event::Duplicated { fd: 9, from: 3 }, Event::Closed { fd: 3 }]);
        events.push(Event::Resized { fd: 9, len: 0 });
        let expected = ["", "a=", "a=x", "b=", "b=x", "a= b=", "a=x b=x"];
        assert_eq!(outcomes(&disk(&events), &[]), set(expected));
        assert_eq!(text(&disk(&events).current()), "b=");
    }

    #[test]
    fn a_spared_folder_loses_nothing() {
        let mut events = vec![Event::MadeFolder { path: "store".into() }, Event::MadeFolder { path: "store/d".into() }];
        events.extend([opened(3, "store/d/a"), wrote(3, "x"), opened(4, "b"), Event::Synced { fd: 4 }]);
        assert_eq!(
            outcomes(&disk(&events), &["store"]),
            set(["store/ store/d/ store/d/a=x", "b= store/ store/d/ store/d/a=x"])
        );
    }

    #[test]
    fn an_image_survives_a_real_folder() {
        let events = [Event::MadeFolder { path: "d".into() }, opened(3, "d/a"), wrote(3, "x"), opened(4, "b")];
        let image = disk(&events).current();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("old/older")).unwrap();
        std::fs::write(dir.path().join("file"), "old").unwrap();
        image.write(dir.path()).unwrap();
        assert_eq!(Image::read(dir.path()).unwrap(), image);
        assert_eq!(Disk::new(&image).current(), image);
        assert_eq!(image.difference(&Image::default()), Some("b".into()));
    }

    #[test]
    fn what_cannot_have_happened_is_an_error() {
        let mut disk = Disk::new(&Image::default());
        assert!(disk.replay(&wrote(3, "x")).is_err());
        assert!(disk.replay(&Event::Renamed { path: "a".into(), from: "b".into() }).is_err());
        assert!(disk.replay(&opened(3, "no/a")).is_err());
    }
}
