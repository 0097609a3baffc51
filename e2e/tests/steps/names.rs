//! Kills while volumes get, change and lose their names.

use quire_e2e::World;

use crate::case::{Case, PUSH};
use crate::model::import;
use crate::trial::Trial;

fn pushed(world: &World) {
    import(world, "first", 100);
    world.machine("machine").ok(&["push"]);
}

/// The volume is in the store, and this machine knows nothing.
fn elsewhere(world: &World) {
    pushed(world);
    std::fs::remove_dir_all(world.path("machine")).unwrap();
}

#[test]
fn a_new_volume() {
    let case = Case::once("create", &["create", "first"], "volume first exists already");
    Trial::new(Case { then: PUSH, ..case }, |_| {}).run();
}

#[test]
fn a_clone() {
    Trial::new(Case::once("clone", &["clone", "first"], "volume first is here already"), elsewhere).run();
}

#[test]
fn a_clone_under_another_name() {
    let case = Case::once("clone as", &["clone", "first", "copy"], "volume copy is here already");
    Trial::new(Case { volumes: &["first", "copy"], ..case }, elsewhere).run();
}

/// Whoever looks at the new name first finishes a renaming that was begun.
const RENAMED: &[&str] = &["second", "first"];
const MV: &[&str] = &["mv", "first", "second"];

#[test]
fn a_renaming() {
    let case = Case::once("rename", MV, "volume second is here already");
    Trial::new(Case { volumes: RENAMED, ..case }, pushed).run();
}

#[test]
fn a_renaming_of_a_volume_that_was_never_pushed() {
    let case = Case::once("rename unpushed", MV, "volume second is here already");
    Trial::new(Case { volumes: RENAMED, then: PUSH, ..case }, |world| import(world, "first", 100)).run();
}

#[test]
fn a_renaming_in_the_store() {
    let case = Case::once("rename in the store", MV, "there is no volume first");
    Trial::new(Case { volumes: RENAMED, ..case }, elsewhere).run();
}

#[test]
fn a_removal() {
    Trial::new(Case::once("remove", &["rm", "first"], "volume first has no replica"), pushed).run();
}

#[test]
fn a_removal_of_unpushed_work() {
    let case = Case::once("remove unpushed", &["rm", "--force", "first"], "volume first has no replica");
    Trial::new(case, |world| import(world, "first", 100)).run();
}

#[test]
fn a_deletion_in_the_store() {
    let case = Case::once("delete in the store", &["rm", "--store", "first"], "there is no volume first");
    Trial::new(case, elsewhere).run();
}
