//! Generates the protocol's Rust code from the compiled schema image, so that no `capnp` program is
//! needed. `schema/rpc.image` is what `capnp compile --no-standard-import -o- rpc.capnp`, run in
//! `schema/`, prints.
#![forbid(unsafe_code)]
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=schema/rpc.image");
    let image = std::fs::read("schema/rpc.image")?;
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    capnpc::codegen::CodeGenerationCommand::new().output_directory(out).run(&image[..])?;
    Ok(())
}
