//! Compiles the wire messages and services without a system protoc.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["common", "metastore", "pagestore", "admin"].map(|f| format!("quire/v1/{f}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("quire.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        // What the console and the command line show as JSON.
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .enum_attribute(".", "#[serde(rename_all = \"snake_case\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
