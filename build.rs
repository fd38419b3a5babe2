//! Generates the stubs from the compiled schema, so that building needs no `capnp` program.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// A `CodeGeneratorRequest`, as `capnp compile -o-` writes it; `cargo xtask schema` renews it.
const IMAGE: &str = "schema/statefs.image";

/// What capnpc 0.27 writes for interfaces in terms of the std prelude, and the same for `alloc`.
const STD_ONLY: [(&str, &str); 2] =
    [(" Box<", " ::alloc::boxed::Box<"), ("\".to_string()", "\".into()")];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={IMAGE}");

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let image = fs::read(IMAGE)?;
    capnpc::codegen::CodeGenerationCommand::new().output_directory(&out).run(image.as_slice())?;
    rewrite_for_alloc(&out.join("statefs_capnp.rs"))
}

/// Makes the generated code compile without std.
///
/// # Errors
/// A pattern that does not occur: the generator has changed, so what it writes has to be read anew
/// and the pattern dropped or replaced.
fn rewrite_for_alloc(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut code = fs::read_to_string(path)?;
    for (std_only, alloc) in STD_ONLY {
        if !code.contains(std_only) {
            return Err(format!("capnpc no longer writes `{std_only}`: revise STD_ONLY").into());
        }
        code = code.replace(std_only, alloc);
    }
    fs::write(path, code)?;
    Ok(())
}
