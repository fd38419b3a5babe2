@0xbdf87d7bb8304e81;
# What statefs.capnp uses of the standard c++.capnp, under its well-known ids.
$namespace("capnp::annotations");

annotation namespace @0xb9c6f99ebf805f2c (file) :Text;
