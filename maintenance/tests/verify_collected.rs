//! History that was collected is no damage, unless somebody still needs it.
#![allow(clippy::unwrap_used)] // a failed expectation is what a test is for

mod common;

use common::{World, lsn, name, on_each_store};
use quire_maintenance::verify::Object;
use quire_proto::LogUpkeep;

fn stub(world: &World, commits: impl IntoIterator<Item = u64>) {
    let store = quire_metastore::Embedded::new(world.bucket.clone(), quire_metastore::Options::default());
    for n in commits {
        world.wait(store.stub(&name("app"), lsn(n))).unwrap();
    }
}

#[test]
fn collected_commits_are_no_damage() {
    on_each_store(|world| {
        world.push("app", 1..=40);
        world.push("app", 33..=60);
        world.push("app", 1..=40);
        world.volume("app").checkpoint().unwrap();
        world.push("app", [5]);
        // Of the first nobody needs anything any more, of the second its segment.
        stub(world, [1, 2]);
        world.delete(&world.segment("app", 1));
        for report in [world.plain("app"), world.deep("app")] {
            assert!(report.is_sound() && report.touched.is_empty(), "{report:?}");
            assert_eq!((report.commits, report.collected, report.readable), (4, 2, Some(lsn(4))));
        }
    });
}

#[test]
fn what_a_checkpoint_needs_of_a_collected_commit_is_damage() {
    on_each_store(|world| {
        world.app();
        world.volume("app").checkpoint().unwrap();
        world.push("app", [7]);
        // LSN 2 has page 3 of the newest snapshot in itself.
        stub(world, [1, 2]);
        for report in [world.plain("app"), world.deep("app")] {
            assert_eq!(report.damage.len(), 1, "{report:?}");
            let damage = &report.damage[0];
            assert_eq!(damage.object, Object::Commit { lsn: lsn(2) });
            assert!(damage.problem.contains("checkpoint of LSN 5 needs it"), "{damage:?}");
            assert_eq!(damage.pages.ranges().collect::<Vec<_>>(), [(3, 3)]);
            assert_eq!(report.touched, [(lsn(5), lsn(6))]);
        }
    });
}
