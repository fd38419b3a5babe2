@0xbdf87d7bb8304e81;
# What statefs.capnp uses of the standard c++.capnp, under its well-known ids.
$namespace("capnp::annotations");

annotation namespace @0xb9c6f99ebf805f2c (file) :Text;
annotation name @0xf264a779fef191ce (field, enumerant, struct, enum, interface, method, param, group, union) :Text;
