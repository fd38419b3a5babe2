//! What a compiled schema means, as text: all that a peer or a reader of the documentation can
//! tell, and nothing that depends on the version of the program that compiled it.

use std::collections::BTreeMap;
use std::fmt::Write;

use capnp::message::{Reader, ReaderOptions};
use capnp::schema_capnp::{code_generator_request as request, node};
use capnp::serialize::{OwnedSegments, read_message};

/// Returns the version of `capnp` that wrote `image`: major, minor, micro.
///
/// # Errors
/// `image` is no `CodeGeneratorRequest`.
pub(crate) fn version(image: &[u8]) -> capnp::Result<(u16, u8, u8)> {
    let message = read(image)?;
    let version = message.get_root::<request::Reader<'_>>()?.get_capnp_version()?;
    Ok((version.get_major(), version.get_minor(), version.get_micro()))
}

/// Writes the nodes of the requested files in the order of their ids, each with its documentation.
///
/// Left out: positions in the source, which only newer programs fill in, and the nodes of imported
/// files, of which they add some.
///
/// # Errors
/// `image` is no `CodeGeneratorRequest`.
pub(crate) fn project(image: &[u8]) -> capnp::Result<String> {
    let message = read(image)?;
    let root = message.get_root::<request::Reader<'_>>()?;
    let mut nodes = BTreeMap::new();
    for node in root.get_nodes()? {
        nodes.insert(node.get_id(), node);
    }
    let mut files = Vec::new();
    for file in root.get_requested_files()? {
        files.push(file.get_id());
    }

    let mut text = String::new();
    for node in nodes.values().filter(|node| files.contains(&file_of(&nodes, **node))) {
        project_node(&mut text, *node)?;
    }
    let mut documentation = BTreeMap::new();
    for info in root.get_source_info()? {
        if nodes.get(&info.get_id()).is_some_and(|node| files.contains(&file_of(&nodes, *node))) {
            documentation.insert(info.get_id(), info);
        }
    }
    for (id, info) in documentation {
        line(&mut text, format_args!("doc {id:#018x} {:?}", info.get_doc_comment()?));
        for member in info.get_members()? {
            line(&mut text, format_args!("  doc {:?}", member.get_doc_comment()?));
        }
    }
    Ok(text)
}

fn project_node(text: &mut String, node: node::Reader<'_>) -> capnp::Result<()> {
    let id = node.get_id();
    let scope = node.get_scope_id();
    line(text, format_args!("node {id:#018x} in {scope:#018x} {:?}", node.get_display_name()?));
    for nested in node.get_nested_nodes()? {
        line(text, format_args!("  {:?} {:#018x}", nested.get_name()?, nested.get_id()));
    }
    for parameter in node.get_parameters()? {
        line(text, format_args!("  parameter {:?}", parameter.get_name()?));
    }
    for annotation in node.get_annotations()? {
        line(text, format_args!("  {annotation:?}"));
    }
    match node.which()? {
        node::File(()) => line(text, format_args!("  file")),
        node::Struct(body) => line(text, format_args!("  struct {body:?}")),
        node::Enum(body) => line(text, format_args!("  enum {body:?}")),
        node::Interface(body) => line(text, format_args!("  interface {body:?}")),
        node::Const(body) => line(text, format_args!("  const {body:?}")),
        node::Annotation(body) => line(text, format_args!("  annotation {body:?}")),
    }
    Ok(())
}

/// Returns the id of the file that declares `node`; its outermost known scope, in a broken image.
fn file_of(nodes: &BTreeMap<u64, node::Reader<'_>>, node: node::Reader<'_>) -> u64 {
    let mut node = node;
    // A chain of scopes is no longer than there are nodes, unless it runs in a circle.
    for _ in nodes {
        match nodes.get(&node.get_scope_id()) {
            Some(scope) => node = *scope,
            None => break,
        }
    }
    node.get_id()
}

fn read(image: &[u8]) -> capnp::Result<Reader<OwnedSegments>> {
    read_message(image, ReaderOptions::new())
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use capnp::message::{Builder, HeapAllocator};
    use capnp::serialize::write_message_to_words;

    use super::*;

    const IMAGE: &[u8] = include_bytes!("../../schema/statefs.image");

    /// Rewrites the image through `edit`.
    fn edited(edit: impl FnOnce(request::Builder<'_>)) -> Vec<u8> {
        let message = read(IMAGE).unwrap();
        let mut copy = Builder::<HeapAllocator>::new_default();
        copy.set_root(message.get_root::<request::Reader<'_>>().unwrap()).unwrap();
        edit(copy.get_root().unwrap());
        write_message_to_words(&copy)
    }

    #[test]
    fn another_version_changes_nothing() {
        let other = edited(|request| request.get_capnp_version().unwrap().set_minor(99));
        assert_ne!(version(IMAGE).unwrap(), version(&other).unwrap());
        assert_eq!(project(IMAGE).unwrap(), project(&other).unwrap());
    }

    #[test]
    fn a_field_that_moves_shows() {
        let other = edited(|request| {
            let mut nodes = request.get_nodes().unwrap();
            for index in 0..nodes.len() {
                if let Ok(node::Struct(body)) = nodes.reborrow().get(index).which() {
                    let mut fields = body.get_fields().unwrap();
                    if !fields.is_empty() {
                        return fields.reborrow().get(0).set_discriminant_value(7);
                    }
                }
            }
        });
        assert_ne!(project(IMAGE).unwrap(), project(&other).unwrap());
    }

    #[test]
    fn a_comment_shows_and_imported_nodes_do_not() {
        let text = project(IMAGE).unwrap();
        assert!(text.contains("doc 0xd456090dbb3b76d1 \"The bootstrap capability"));
        assert!(text.contains("absent"));
        assert!(!text.contains("c++.capnp"));
    }

    #[test]
    fn what_is_no_image_is_an_error() {
        for bytes in [&b""[..], b"not a message", &IMAGE[..IMAGE.len() / 2]] {
            assert!(version(bytes).is_err());
            assert!(project(bytes).is_err());
        }
    }
}
