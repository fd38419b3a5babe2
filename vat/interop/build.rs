//! Generates the test interfaces from their compiled image. `schema/echo.image` is what
//! `capnp compile --no-standard-import -Iinclude -o- echo.capnp`, run in `schema/`, prints.
#![forbid(unsafe_code)]
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=schema/echo.image");
    let image = std::fs::read("schema/echo.image")?;
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    capnpc::codegen::CodeGenerationCommand::new().output_directory(out).run(&image[..])?;
    Ok(())
}
