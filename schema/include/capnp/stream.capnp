@0x86c366a91393f3f8;
# What `-> stream` names, of the standard stream.capnp, under its well-known ids.
struct StreamResult @0x995f9a3377c0b16e {}
