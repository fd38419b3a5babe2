//! The compiled schema, for walking messages by it.

use capnp::message::{Reader, ReaderOptions};
use capnp::schema_capnp::{code_generator_request as request, node};
use capnp::serialize::{OwnedSegments, read_message};

/// The schema that the crate `statefs` was generated from.
pub struct Schema {
    message: Reader<OwnedSegments>,
}

/// One method: its interface's name, its own, and the ids of its two structs.
pub struct Method {
    pub name: String,
    pub params: u64,
    pub results: u64,
}

impl Schema {
    pub fn load() -> Self {
        let message = read_message(statefs::SCHEMA_IMAGE, ReaderOptions::new()).unwrap();
        Self { message }
    }

    /// Every node of the schema and of its imports.
    pub fn nodes(&self) -> impl Iterator<Item = node::Reader<'_>> {
        let root = self.message.get_root::<request::Reader<'_>>().unwrap();
        root.get_nodes().unwrap().iter()
    }

    pub fn node(&self, id: u64) -> node::Reader<'_> {
        self.nodes().find(|node| node.get_id() == id).unwrap()
    }

    pub fn structure(&self, id: u64) -> node::struct_::Reader<'_> {
        let Ok(node::Struct(body)) = self.node(id).which() else { panic!("{id:#x} is no struct") };
        body
    }

    /// The name without its file, such as `Directory.GetParams`.
    pub fn name(&self, id: u64) -> String {
        let name = self.node(id).get_display_name().unwrap().to_string().unwrap();
        name.split_once(':').unwrap().1.into()
    }

    /// The name of an enum's member; `None` for a number that it does not have.
    pub fn enumerant(&self, id: u64, number: u16) -> Option<String> {
        let Ok(node::Enum(body)) = self.node(id).which() else { panic!("{id:#x} is no enum") };
        let enumerant = body.get_enumerants().unwrap().try_get(number.into())?;
        Some(enumerant.get_name().unwrap().to_string().unwrap())
    }

    /// Every method of every interface, named `Directory.get`.
    pub fn methods(&self) -> Vec<Method> {
        let mut methods = Vec::new();
        for node in self.nodes() {
            let Ok(node::Interface(body)) = node.which() else {
                continue;
            };
            for method in body.get_methods().unwrap() {
                let name = method.get_name().unwrap().to_str().unwrap();
                methods.push(Method {
                    name: format!("{}.{name}", self.name(node.get_id())),
                    params: method.get_param_struct_type(),
                    results: method.get_result_struct_type(),
                });
            }
        }
        methods
    }

    /// Every member of every union, and every member of every enum that a message can hold.
    ///
    /// Named `Current.absent`; the structs and enums of imports are not among them.
    pub fn members(&self) -> Vec<String> {
        let mut members = Vec::new();
        for node in self.nodes() {
            let (id, named) = (node.get_id(), |name: capnp::text::Reader<'_>| {
                format!("{}.{}", self.name(node.get_id()), name.to_str().unwrap())
            });
            match node.which() {
                Ok(node::Struct(body)) if body.get_discriminant_count() > 0 => {
                    let fields = body.get_fields().unwrap().iter();
                    let arms = fields.filter(|field| field.get_discriminant_value() != 0xffff);
                    members.extend(arms.map(|arm| named(arm.get_name().unwrap())));
                }
                Ok(node::Enum(body)) if self.is_field_type(id) => {
                    let enumerants = body.get_enumerants().unwrap().iter();
                    members.extend(enumerants.map(|member| named(member.get_name().unwrap())));
                }
                _ => {}
            }
        }
        members
    }

    fn is_field_type(&self, id: u64) -> bool {
        use capnp::schema_capnp::{field, type_};
        self.nodes().any(|node| {
            let Ok(node::Struct(body)) = node.which() else {
                return false;
            };
            body.get_fields().unwrap().iter().any(|field| {
                let Ok(field::Slot(slot)) = field.which() else {
                    return false;
                };
                let kind = slot.get_type().unwrap();
                matches!(kind.which(), Ok(type_::Enum(found)) if found.get_type_id() == id)
            })
        })
    }
}
