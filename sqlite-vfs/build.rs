//! Finds where each routine stands in the table that SQLite hands to an
//! extension. The table only ever grows at its end, so the order of its
//! members in any newer header is the order in every older SQLite.

use std::fmt::Write;
use std::path::PathBuf;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let header = PathBuf::from(std::env::var("DEP_SQLITE3_INCLUDE")?).join("sqlite3ext.h");
    let text = std::fs::read_to_string(&header)?;
    let mut code = String::new();
    for (position, name) in routines(&text)?.iter().enumerate() {
        writeln!(code, "pub(crate) const {name}: usize = {position};")?;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("positions.rs");
    std::fs::write(out, code)?;
    Ok(())
}

/// The members of `struct sqlite3_api_routines`, in order. Each is a pointer
/// to a function, `type (*name)(arguments);`.
fn routines(header: &str) -> Outcome<Vec<&str>> {
    let start = header.find("struct sqlite3_api_routines {").ok_or("the header has no table of routines")?;
    let body = &header[start..];
    let body = &body[body.find('{').unwrap_or_default() + 1..body.find("\n};").ok_or("the table has no end")?];
    let mut names = Vec::new();
    for member in body.split(';') {
        let starts = ["(*", "(SQLITE_CDECL*"].map(|start| member.find(start).map(|at| at + start.len()));
        // A callback among the arguments is written `(*)` too; the name comes first.
        if let Some(at) = starts.into_iter().flatten().min() {
            names.push(member[at..].split(')').next().ok_or("a routine has no name")?);
        }
    }
    Ok(names)
}
