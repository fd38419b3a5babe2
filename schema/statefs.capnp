@0x92937b199aa02400;
# StateFS, schema v1: the interface of a durable key-value store that owns a machine's /state.
#
# The comment after each declaration is its specification; a server and a client can be written
# from this file alone.
#
# Connection. Two-party Cap'n Proto RPC over one ordered byte stream; the bootstrap capability is a
# `StateFs`. Who the caller is has been fixed by the transport before the first byte: nothing that
# a client sends names or changes its identity.
#
# Keys. A key is a path below /state, such as /state/net/wifi. It is UTF-8, its segments are
# separated by one slash and are not empty, not "." and not "..", it holds no control character
# (Unicode category Cc), does not end in a slash, and is `Limits.keyBytes` long at most, counted as
# the whole path with "/state/". A key that breaks a rule is refused, never normalised. Keys are
# ordered by their bytes, and two keys are the same if and only if their bytes are. A key may be
# present while others lie beneath it: "a" and "a/b" are independent.
#
# Values. Up to `Limits.valueBytes` bytes in one call, uninterpreted. An empty value is a value.
#
# Versions. An opaque 64-bit number, never 0, given to every write of a key. Two versions are equal
# if and only if they come from the same write; they have no order.
#
# Damage. A key is damaged if its last acknowledged write cannot be read back as it was written. A
# lost stretch of the journal whose keys cannot be named damages every key that was not written
# after it, present or not: it may have held a later write, so each answers `dataLoss` until it is
# written or deleted again. Damage is never taken for absence, and a write without precondition over
# a damaged key ends it.
#
# Order. The effects of one connection's calls appear in the order of the calls. A read sees what
# is durable and what was acknowledged as buffered; it waits for an earlier write of the same key
# on the same connection, and for nothing else.
#
# Outcomes. What a correct caller must expect is a member of the result's union. The member with
# the lowest ordinal is always the one that claims least, so that a message of zeros, or a result
# that a broken peer left out, never reads as success, as absence or as a healthy store.
#
# Exceptions. A refusal or a fault is a Cap'n Proto exception. Its reason starts with a code of
# `ErrorCode` in upper snake case, then ": ", then text for people, which may change and which
# never holds a value: "KEY_TOO_LONG: 300 bytes, the limit is 255". A reason that starts with no
# code comes from the transport or from the RPC layer; one of type `disconnected` means that the
# connection has ended. A call that ended in an exception with a code applied nothing. A write that
# ended in any other exception is indeterminate.
#
# Every method may answer OVERLOADED, UNIMPLEMENTED and INVALID_ARGUMENT; they are not repeated.
#
# Evolution. Fields, members and methods are appended, ordinals are never reused, a retired one
# keeps its place. A server answers UNIMPLEMENTED to a union member or enumerant that it does not
# know; a client takes an unknown member of a result for the member with the lowest ordinal.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("statefs");

interface StateFs @0xd456090dbb3b76d1 {
  # The bootstrap capability of a connection: who is there, how it fares, and the way in.
  # It carries no authority over any key.

  hello @0 HelloParams -> HelloResults;
  # Tells what the server speaks and where its limits are. Optional, repeatable, without effect on
  # the connection.
  #
  # Rights: none. Durability: none.
  # Errors: INVALID_ARGUMENT if `protocol` is 0.

  health @1 HealthParams -> HealthResults;
  # Tells what the store can do at this moment. Answered in every mode, without device I/O.
  #
  # Rights: none; what it tells is open to all. Durability: none.

  open @2 OpenParams -> OpenResults;
  # Returns a capability for the keys below `prefix`.
  #
  # It promises nothing about later calls: each use of the capability is checked against the rights
  # asked for here AND the policy of that moment. The prefix need not exist, and opening it creates
  # nothing. Works in every mode but `sealed` and `failed`.
  #
  # Rights: the policy grants the caller some right on some key that is below `prefix`.
  # Durability: none.
  # Errors: ACCESS_DENIED if it grants none, whatever the store holds; INVALID_KEY, KEY_TOO_LONG for
  # the prefix; SEALED; IO_ERROR in the mode `failed`.

  struct HelloParams @0xd11ce71b6db2eab9 {
    clientName @0 :Text;
    # The client's program and version, for the server's log. The server trusts it for nothing,
    # keeps its first 64 bytes at most and escapes what is not printable. May be empty.

    protocol @1 :UInt32;
    # The newest protocol version that the client speaks; this schema is version 1.
  }

  struct HelloResults @0xa752c0a0b2379fe3 {
    protocol @0 :UInt32;
    # The protocol version of this connection: the smaller of the client's and the server's newest.

    features @1 :UInt64;
    # What the server serves beyond the first state of this schema, one bit each. No bit is
    # assigned yet. Bits that a client does not know mean nothing to it.

    limits @2 :Limits;
    # The bounds that this server enforces.

    serviceName @3 :Text;
    # The caller's name in the policy; empty if the policy does not name it, which is denied all.

    softwareVersion @4 :Text;
    # The server's program and version, for people and logs, such as "statefsd 0.1.0".
  }

  struct HealthParams @0xd0242de851465fcd {}

  struct HealthResults @0x9d12479146586073 {
    mode @0 :Mode;
    # What the store can do.

    reason @1 :Text;
    # Why the mode is not `healthy`, in one sentence for people; empty when it is. Names no key and
    # no service.

    lossCount @2 :UInt64;
    # How many losses of acknowledged data the store knows of: every damaged key counts once, and so
    # does every lost stretch of the journal whose keys cannot be named. Not 0 means that the mode
    # is at best `degraded`.
  }

  struct OpenParams @0xd8094facb178d515 {
    prefix @0 :Text;
    # "/state" or a path below it, under the rules of a key.

    rights @1 :Rights;
    # The most that the capability shall be good for. Rights that the policy does not grant may be
    # asked for; they have no effect until it does.
  }

  struct OpenResults @0xeb13fdb66ec71238 {
    directory @0 :Directory;
    # The capability. Never null in a result, so calls may be pipelined on it.
  }
}

interface Directory @0xd79d2f30c3e6e5bb {
  # A capability for the keys below one prefix, with certain rights.
  #
  # Keys are relative to that prefix: in a directory of /state/net the key "wifi/ssid" is
  # /state/net/wifi/ssid. A relative key follows the rules of a key, has no leading slash and is not
  # empty, so the prefix itself is no key of its directory.
  #
  # Every method checks, before it looks at the store, that the capability holds the right AND that
  # today's policy grants it to the caller on that key; else it answers ACCESS_DENIED, byte for byte
  # the same whether the key is present, absent or damaged.
  #
  # Every method but `sync` may answer ACCESS_DENIED, INVALID_KEY, KEY_TOO_LONG, REVOKED, EXPIRED,
  # SEALED and IO_ERROR; only further errors are told below.

  get @0 GetParams -> GetResults;
  # Reads one key.
  #
  # Rights: get. Durability: none; the value may be one that was acknowledged as buffered.

  put @1 PutParams -> PutResults;
  # Writes one key, creating or replacing it as a whole.
  #
  # Rights: put; and get if the precondition is other than `any`, since its answer tells of the key.
  # Durability: as asked for, when this returns `version`.
  # Errors: VALUE_TOO_LARGE, QUOTA_EXCEEDED, NO_SPACE, READ_ONLY.

  delete @2 DeleteParams -> DeleteResults;
  # Removes one key; what lies beneath it stays. Works when the disk is full or a quota is used up.
  #
  # Rights: delete, which includes learning whether there was anything to delete; and get if the
  # precondition is other than `any`.
  # Durability: as asked for, when this returns `deleted`.
  # Errors: READ_ONLY.

  list @3 ListParams -> ListResults;
  # Returns one page of the keys that are `prefix` or lie beneath it, in the order of keys.
  #
  # Keys that the caller may not list are left out without a trace; with values, so are keys that it
  # may not get. Pages are not one snapshot: each shows the store at the time of its call. A key
  # that is present throughout is in exactly one page.
  #
  # Rights: list; and get unless `keysOnly`. ACCESS_DENIED if the caller may list (and get) no key
  # in `prefix` at all, whatever the store holds.
  # Durability: none.

  sync @4 SyncParams -> SyncResults;
  # Makes durable every write that was acknowledged as buffered on this connection before this call,
  # through whichever directory.
  #
  # Rights: none beyond holding a directory. Durability: all of those writes, when this returns
  # `durable`.

  struct GetParams @0xfc233b1ca10df6bf {
    key @0 :Text;
    # The key to read.

    metadataOnly @1 :Bool;
    # Return the version and the size but no data. The value is then not read from the device, so
    # damage that was not known before stays unknown.
  }

  struct GetResults @0xb5732c16b873d360 {
    union {
      dataLoss @0 :Void;
      # The key is damaged.

      absent @1 :Void;
      # There is no such key, and no damage hides one.

      value @2 :Value;
      # What the key holds, verified.
    }
  }

  struct PutParams @0xf02c432238eb26f2 {
    key @0 :Text;
    # The key to write.

    value @1 :Data;
    # What it shall hold.

    precondition @2 :Precondition;
    # What must hold of the key for the write to happen; null is `any`.

    durability @3 :Durability;
    # What must be true before the answer.
  }

  struct PutResults @0xbb15a09cf5616b2c {
    union {
      indeterminate @0 :Void;
      # The write was begun and could not be confirmed: it may be found after the next replay, or
      # not. The store takes no writes from here on.

      version @1 :UInt64;
      # Written. The version of this write.

      conflict @2 :Current;
      # The precondition does not hold; nothing was written.

      dataLoss @3 :Void;
      # The key is damaged, so the precondition cannot be told; nothing was written.
    }
  }

  struct DeleteParams @0xe1de67fed8d5fd64 {
    key @0 :Text;
    # The key to remove.

    precondition @1 :Precondition;
    # What must hold of the key for the removal to happen; null is `any`. With `absent` there is
    # nothing to remove: the answer is `absent` or `conflict`.

    durability @2 :Durability;
    # What must be true before the answer `deleted`.
  }

  struct DeleteResults @0xbdeda990cb18b7ee {
    union {
      indeterminate @0 :Void;
      # The removal was begun and could not be confirmed: the key may be found after the next
      # replay, or not. The store takes no writes from here on.

      deleted @1 :Void;
      # The key was there, or damage hid whether it was, and it is gone. Its version is not told:
      # the right `delete` does not include it, and who holds `get` can demand it as the
      # precondition.

      absent @2 :Void;
      # The precondition holds and there was nothing to remove.

      conflict @3 :Current;
      # The precondition does not hold; nothing was removed.

      dataLoss @4 :Void;
      # The key is damaged, so the precondition cannot be told; nothing was removed.
    }
  }

  struct ListParams @0xcbcc64818e539965 {
    prefix @0 :Text;
    # A relative key: the page holds that key and those beneath it, by whole segments, so "a" covers
    # "a" and "a/b" but not "ab". Empty covers the whole directory.

    after @1 :Text;
    # Only keys that are greater than this one, by their bytes. Empty starts at the first. It
    # follows the rules of a relative key, but need not be present and need not lie in `prefix`.

    limit @2 :UInt32;
    # The most entries wanted. 0, or more than `Limits.listEntries`, means `Limits.listEntries`. A
    # page may hold fewer: it also ends before it would pass `Limits.replyBytes`. Only `next` tells
    # whether there is more; a page that has a successor holds one entry at least.

    keysOnly @3 :Bool;
    # Return keys, versions and sizes but no data; see `GetParams.metadataOnly`.
  }

  struct ListResults @0x9c2b4e377540004d {
    entries @0 :List(Entry);
    # The page, in the order of keys.

    next @1 :Text;
    # The last key of this page, to be passed as `after` for the next one; empty at the end. The
    # next page may turn out to be empty.

    intact @2 :Bool;
    # No data loss touches what this page covers: it holds every key that was ever acknowledged and
    # not deleted, with its value. False if an entry is `dataLoss`, or if keys may be missing
    # because a stretch of the journal that could have held them was lost.
  }

  struct SyncParams @0xf048819d6cc50a4d {}

  struct SyncResults @0xc54ac866ec4bae80 {
    union {
      indeterminate @0 :Void;
      # Some of those writes may be lost. Every later `sync` on this connection answers the same.

      durable @1 :Void;
      # All of those writes survive a power cut.
    }
  }
}

struct Rights @0xbc8fda23672a7f4c {
  # What a capability may be used for. Each name is the policy's word for the right.

  get @0 :Bool;
  # Read values and versions, and write on preconditions that tell of them.

  list @1 :Bool;
  # Learn names, sizes and versions of keys.

  put @2 :Bool;
  # Create and replace keys.

  delete @3 :Bool;
  # Remove keys.

  watch @4 :Bool;
  # Be told of changes. No method of this version needs it.

  snapshot @5 :Bool;
  # Freeze a view. No method of this version needs it.

  delegate @6 :Bool;
  # Hand authority to another service. No method of this version needs it.
}

struct Precondition @0xe8abfc69eb47298b {
  # What must hold of a key at the moment of a write, counting the writes that are under way. The
  # answer waits until those are decided.

  union {
    any @0 :Void;
    # Nothing.

    absent @1 :Void;
    # There is no such key.

    version @2 :UInt64;
    # The key is present and this is its version. 0 is no version and never holds.
  }
}

struct Current @0x8bed4458d2fcccfe {
  # What a key is instead of what the precondition demanded.

  union {
    version @0 :UInt64;
    # Present, in this version.

    absent @1 :Void;
    # Not present.
  }
}

struct Value @0xc9546489bdfb98a1 {
  # What a key holds.

  version @0 :UInt64;
  # The version of the write that put it there.

  bytes @1 :UInt64;
  # The size of the value, also where `data` was not asked for.

  data @2 :Data;
  # The value; empty where only metadata was asked for.
}

struct Entry @0x80c18ee9cb3f3fd3 {
  # One key of a list.

  key @0 :Text;
  # The key, relative to the directory (not to the list's prefix).

  union {
    dataLoss @1 :Void;
    # The key is damaged.

    value @2 :Value;
    # What it holds.
  }
}

struct Limits @0xb779df17b72d5eb1 {
  # The bounds that a server enforces, in bytes where the name says so. Beside each its usual
  # number; a small machine gives less.

  keyBytes @0 :UInt32;
  # 255. Longest key, as a whole path. Beyond: KEY_TOO_LONG.

  valueBytes @1 :UInt32;
  # 65,536. Longest value of one call. Beyond: VALUE_TOO_LARGE.

  replyBytes @2 :UInt32;
  # 1,048,576. Largest result message; a list ends its page before it.

  listEntries @3 :UInt32;
  # 1,024. Most entries in one page of a list.

  frameBytes @4 :UInt32;
  # 1,310,720. Largest message that the server reads, with its segment table. Beyond: the connection
  # ends, and so it does for the next three.

  frameSegments @5 :UInt32;
  # 16. Most segments of such a message.

  nesting @6 :UInt32;
  # 16. Deepest chain of pointers that the server follows.

  traversalBytes @7 :UInt32;
  # 2,621,440. Most bytes that the server reads by following pointers of one message.

  calls @8 :UInt32;
  # 64. Most calls of one connection that are not yet answered. Beyond: OVERLOADED.

  exports @9 :UInt32;
  # 1,024. Most capabilities that one connection holds. Beyond: OVERLOADED.

  bytesInFlight @10 :UInt32;
  # 2,097,152. Most bytes of calls of one connection that are not yet answered. Beyond: OVERLOADED.
  # While as many bytes of replies wait to be read, the server reads no further calls.

  connections @11 :UInt32;
  # 128. Most connections, over all clients. Beyond: the new connection ends at once.
}

enum Mode @0xe9069bf663b67eee {
  # What a store can do.

  unknown @0;
  # Never sent. What a missing answer reads as.

  healthy @1;
  # Everything, with all the redundancy that the volume was made with.

  degraded @2;
  # Everything, but redundancy or data was lost, or part of the machinery is out of order.

  readOnly @3;
  # Reads only. Writes answer READ_ONLY. It ends when the volume is opened anew.

  sealed @4;
  # Nothing: the volume is encrypted and its key has not been given. Methods answer SEALED.

  failed @5;
  # Nothing: the volume cannot be read. Methods answer IO_ERROR.
}

enum Durability @0xa4dfc174cc303de3 {
  # What is true of a write when it is acknowledged.

  durable @0;
  # It is on the medium, in as many copies as the volume keeps, and survives a power cut.

  buffered @1;
  # It is ordered and visible to reads. A crash may lose it, but never an earlier write of this
  # connection without it. `sync` makes it durable.

  strict @2;
  # As `durable`, and the medium says in a second place that it was written: should every copy be
  # damaged later, the loss is told, where a `durable` write of the last moments before the store
  # fell silent is taken for one that never was. Costs a second flush, which writes under load share.
}

enum ErrorCode @0xd1eb5ff304bf81d0 {
  # The codes that the reason of an exception starts with, and the type of that exception. A client
  # that meets an unknown code goes by the type.

  accessDenied @0;
  # ACCESS_DENIED, failed. No right. The reason has no further facts: it is the same text for every
  # key, present, absent or damaged.

  invalidKey @1;
  # INVALID_KEY, failed. A key, prefix or `after` breaks a rule of keys other than its length.

  keyTooLong @2;
  # KEY_TOO_LONG, failed. A key, prefix or `after` passes `Limits.keyBytes`.

  valueTooLarge @3;
  # VALUE_TOO_LARGE, failed. A value passes `Limits.valueBytes`.

  batchTooLarge @4;
  # BATCH_TOO_LARGE, failed. A group of writes passes a limit. No method of this version answers it.

  quotaExceeded @5;
  # QUOTA_EXCEEDED, failed. The write would pass a quota on bytes or keys. `delete` still works.

  noSpace @6;
  # NO_SPACE, failed. The volume is full. `delete` still works, and the state ends by itself.

  readOnly @7;
  # READ_ONLY, failed. The store takes no writes; the text is the reason that `health` tells.

  sealed @8;
  # SEALED, failed. The volume's key has not been given.

  ioError @9;
  # IO_ERROR, failed. The device failed a read, or the store is in the mode `failed`; the text is
  # the reason that `health` tells. Whether the key is damaged is not known: that is `dataLoss`.

  revoked @10;
  # REVOKED, failed. The capability was revoked. No method of this version revokes one.

  expired @11;
  # EXPIRED, failed. The capability's time is over. No method of this version limits it.

  overloaded @12;
  # OVERLOADED, overloaded. The connection is at a limit of its own, or the server is out of memory
  # for it. Nothing was applied; the same call may succeed later.

  unimplemented @13;
  # UNIMPLEMENTED, unimplemented. An unknown method, union member, enumerant or feature.

  invalidArgument @14;
  # INVALID_ARGUMENT, failed. A parameter other than a key cannot be read or has no meaning.
}
