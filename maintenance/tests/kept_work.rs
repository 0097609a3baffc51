//! Work that is not in the store, and the snapshot that it stands on, beside a collector.
#![allow(clippy::unwrap_used)]

#[path = "common/store.rs"]
mod store;

use quire_engine::{Condition, Engine, ErrorKind, Volume};
use quire_maintenance::collect::{Holder, give_up};
use quire_proto::Span;
use store::*;

/// A volume of which a client has nothing here but one commit of its own, on LSN 8, that is not pushed; what it shows.
fn work_on_lsn_8(store: &Store, machine: &str) -> (Engine, Volume, Vec<u64>) {
    let client = store.client(machine);
    let volume = client.volume(&name("v")).unwrap();
    let mut shown = grow(&store.client("a").volume(&name("v")).unwrap(), 8).pop().unwrap();
    volume.pull().unwrap();
    write(&volume, [(5, 77)]);
    shown[4] = 77;
    (client, volume, shown)
}

/// Others go on, and little of the history is to be kept.
fn others_go_on(store: &Store) {
    grow(&store.client("a").volume(&name("v")).unwrap(), 10);
    store.keep("v", Span::Last(2), &[]);
}

fn is_held(store: &Store) -> bool {
    let collected = store.collect_abandoned("v");
    let held = collected.holds.iter().any(|hold| hold.lsn == lsn(8) && matches!(hold.holder, Holder::Replica(_)));
    assert_eq!(collected.kept.contains(&lsn(8)), held, "{collected:?}");
    held
}

#[test]
fn what_diverged_work_stands_on_is_kept_until_that_is_removed() {
    let store = Store::memory();
    let (client, volume, shown) = work_on_lsn_8(&store, "b");
    others_go_on(&store);
    for _ in 0..2 {
        assert_eq!(volume.push().unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(volume.status().state, Condition::Diverged);
    }
    assert!(is_held(&store));
    assert!(is_held(&store));
    assert_eq!(stamps(&volume), shown, "no page of it was here");
    let dropped = volume.reset().unwrap().kept_as.unwrap();
    assert!(is_held(&store));
    assert_eq!(stamps(&client.existing(&dropped).unwrap()), shown);
    client.remove_replica(&dropped, true).unwrap();
    assert!(!is_held(&store));
}

#[test]
fn a_pull_holds_too_and_so_does_a_reset_that_is_the_first_to_learn_it() {
    for learns in [|volume: &Volume| volume.pull().map(|_| ()), |volume: &Volume| volume.reset().map(|_| ())] {
        let store = Store::memory();
        let (client, volume, shown) = work_on_lsn_8(&store, "b");
        others_go_on(&store);
        if let Err(e) = learns(&volume) {
            assert_eq!(e.kind(), ErrorKind::Conflict, "{e:?}");
        }
        assert!(is_held(&store));
        volume.reset().unwrap();
        let dropped = client.existing(&name("v.dropped-1")).unwrap();
        assert_eq!(stamps(&dropped), shown);
    }
}

#[test]
fn a_killed_process_takes_back_what_it_left_the_next_time() {
    let store = Store::memory();
    let (client, volume, _) = work_on_lsn_8(&store, "b");
    others_go_on(&store);
    volume.push().unwrap_err();
    let dropped = volume.reset().unwrap().kept_as.unwrap();
    drop((client, volume));
    assert!(is_held(&store));
    store.client("b").remove_replica(&dropped, true).unwrap();
    assert!(!is_held(&store));
}

#[test]
fn a_fork_of_unpushed_work_holds_until_its_first_push_says_so_itself() {
    let store = Store::memory();
    let (client, _, shown) = work_on_lsn_8(&store, "b");
    let fork = client.fork(&name("v"), None, &name("fork")).unwrap();
    assert_eq!(fork.lsn, None, "it has more than was forked");
    others_go_on(&store);
    assert!(is_held(&store));
    fork.volume.push().unwrap();
    assert_eq!(stamps(&fork.volume), shown);
    let collected = store.collect_abandoned("v");
    let holders: Vec<_> = collected.holds.iter().map(|hold| &hold.holder).collect();
    assert_eq!(holders, [&Holder::Commit(name("fork"), lsn(1))]);
    assert_eq!(stamps(&store.client("c").existing(&name("fork")).unwrap()), shown);
}

#[test]
fn work_that_learns_too_late_says_so_and_keeps_what_is_here() {
    let store = Store::memory();
    let (client, volume, shown) = work_on_lsn_8(&store, "b");
    let mut first = vec![0; PAGE];
    volume.snapshot().read(page(1), &mut first).unwrap();
    others_go_on(&store);
    store.collect_abandoned("v");
    for _ in 0..2 {
        let gone = volume.push().unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Gone, "{gone:?}");
        assert!(gone.remedy().unwrap().contains("quire reset v"), "{gone:?}");
        assert_eq!((volume.status().state, volume.status().unpushed), (Condition::Diverged, 1));
    }
    let collected = store.collect_abandoned("v");
    assert_eq!((collected.blocked, collected.holds.len()), (None, 0), "it holds up nothing that it cannot have");
    let dropped = client.existing(&volume.reset().unwrap().kept_as.unwrap()).unwrap();
    let snapshot = dropped.snapshot();
    for at in [1, 5] {
        let mut data = vec![0; PAGE];
        snapshot.read(page(at), &mut data).unwrap();
        assert_eq!(data, content(shown[at as usize - 1]));
    }
    let other = snapshot.read(page(300), &mut vec![0; PAGE]).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Gone, "{other:?}");
    assert_ne!(stamps(&volume), shown, "the volume itself goes on at the head");
}

#[test]
fn what_nobody_takes_back_can_be_given_up() {
    let store = Store::memory();
    let (_, volume, _) = work_on_lsn_8(&store, "b");
    others_go_on(&store);
    volume.push().unwrap_err();
    assert!(is_held(&store));
    store.forget("b");
    let give_up = |n| store.runtime.block_on(give_up(&store.stores, &name("v"), lsn(n))).unwrap();
    assert_eq!((give_up(7), give_up(8), give_up(8)), (0, 1, 0));
    assert!(!is_held(&store));
}
