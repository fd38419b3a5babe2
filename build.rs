//! Generates the stubs from the compiled schema, so that building needs no `capnp` program.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use capnp::message::{Builder, ReaderOptions};
use capnp::schema_capnp::code_generator_request;
use capnp::serialize;

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
    rewrite_for_alloc(&out.join("statefs_capnp.rs"))?;
    let brief = env::var_os("CARGO_FEATURE_BRIEF").is_some();
    fs::write(out.join("shown.image"), if brief { without_comments(&image)? } else { image })?;
    Ok(())
}

/// Yields the compiled schema without what it says in words.
fn without_comments(image: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let message = serialize::read_message(image, ReaderOptions::new())?;
    let full: code_generator_request::Reader<'_> = message.get_root()?;
    let mut message = Builder::new_default();
    let mut brief: code_generator_request::Builder<'_> = message.init_root();
    brief.set_capnp_version(full.get_capnp_version()?)?;
    brief.set_nodes(full.get_nodes()?)?;
    brief.set_requested_files(full.get_requested_files()?)?;
    Ok(serialize::write_message_to_words(&message))
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
