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
# Values. Uninterpreted bytes, up to `Limits.valueBytes` in one call and up to
# `Limits.largeValueBytes` through a `Writer` and a `Reader`. An empty value is a value. However it
# was written, a value is visible only whole.
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
# Order. The effects of one connection's calls appear in the order of the calls, that of
# `Writer.done` when it is answered. A read sees what is durable and what was acknowledged as
# buffered; it waits for an earlier write of the same key on the same connection, and for nothing
# else.
#
# Capabilities. Each is good on the connection that it came from and ends with it. What a directory,
# a writer or a reader is good for is asked at each use: its own prefix and rights AND today's
# policy AND that nothing that it was derived from was revoked or has expired.
#
# Retries. What only reads may be called again on a new connection. A write without precondition
# whose answer was lost may be repeated where nobody else writes the key; a `commit` with a token
# may be repeated always. Any other write whose answer was lost is indeterminate.
#
# Outcomes. What a correct caller must expect is a member of the result's union. The member with
# the lowest ordinal is always the one that claims least, so that a message of zeros, or a result
# that a broken peer left out, never reads as success, as absence or as a healthy store.
#
# Exceptions. A refusal or a fault is a Cap'n Proto exception. Its reason is a code of `ErrorCode` in
# upper snake case; if there is more to tell, ": " follows, and text for people, which may change
# and which never holds a value: "KEY_TOO_LONG: 300 bytes, the limit is 255". Any other reason
# comes from the transport or from the RPC layer; one of type `disconnected` means that the
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
  # Rights: none; what it tells is open to all, but for what is said of `reason`. Durability: none.

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

  describe @3 DescribeParams -> DescribeResults;
  # Returns this schema, compiled, for tools that make calls from it.
  #
  # Rights: none; it is the same for everybody. Durability: none.

  admin @4 AdminParams -> AdminResults;
  # Returns a capability for the administration of the whole store.
  #
  # It promises nothing about later calls: each method of it checks the right that it needs against
  # the policy of that moment. Works in every mode.
  #
  # Rights: the policy grants the caller some of the rights that begin with "admin.".
  # Durability: none.
  # Errors: ACCESS_DENIED if it grants none.

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
    # What the server serves beyond the first state of this schema: the bit `1 << ordinal` for each
    # enumerant of `Feature`. A method whose bit is not set answers UNIMPLEMENTED. Bits that a
    # client does not know mean nothing to it.

    limits @2 :Limits;
    # The bounds that this server enforces.

    serviceName @3 :Text;
    # The caller's name in the policy; empty if the policy does not name it, which is denied all.

    softwareVersion @4 :Text;
    # The server's program and version, for people and logs, such as "statefsd 0.1.0".

    adminRights @5 :List(Text);
    # What the policy of this moment lets the caller do with `Admin`: of the rights that begin with
    # "admin." those that it has, in the policy's words. What is not among them need not be tried: it
    # would be refused, and the refusal recorded.
  }

  struct HealthParams @0xd0242de851465fcd {}

  struct HealthResults @0x9d12479146586073 {
    mode @0 :Mode;
    # What the store can do.

    reason @1 :Text;
    # Why the mode is not `healthy`, in one sentence for people; empty when it is. Names no key and
    # no service. To a caller that holds the right `admin.stats` it names the log sequence numbers of
    # acknowledged writes that were lost, which tell how much is written.

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

  struct DescribeParams @0xecc1b2f95a8b8c78 {}

  struct DescribeResults @0xed7c51c0f1740bb7 {
    schema @0 :Data;
    # The compiled schema: a `CodeGeneratorRequest` of Cap'n Proto's schema.capnp in the stream
    # format, with every comment of the source. Read it with a traversal limit of its own size.

    protocol @1 :UInt32;
    # The newest protocol version that the server speaks: the one that `schema` declares.
  }

  struct AdminParams @0x826c1d967d483ccc {}

  struct AdminResults @0xfc3a194592abb1c3 {
    admin @0 :Admin;
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
  # Removes one key; what lies beneath it stays. Works when a quota is used up, and when the volume is
  # full, unless data was lost on it.
  #
  # Rights: delete, which includes learning whether there was anything to delete; and get if the
  # precondition is other than `any`.
  # Durability: as asked for, when this returns `deleted`.
  # Errors: READ_ONLY; NO_SPACE on a full volume after a loss of data.

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

  getMany @5 GetManyParams -> GetManyResults;
  # Reads several keys, each as `get` does. The entries are not one snapshot.
  #
  # It answers the first of the keys, as many as stay under `Limits.replyBytes`, at least one and
  # `Limits.listEntries` at most; the caller asks again for the rest. What lies behind the first
  # `Limits.listEntries` keys is not looked at.
  #
  # Rights: get on every key that is looked at; one that is not granted ends the whole call.
  # Durability: none, as for `get`.

  commit @6 CommitParams -> CommitResults;
  # Writes and removes several keys: all of it happens, at one moment, or nothing.
  #
  # All operations are judged by one version of the policy, before the store is looked at, and their
  # preconditions by the state before the batch. With a token the call may be repeated after a lost
  # answer without being applied twice; see `CommitParams.token`.
  #
  # Rights: for each operation those of `put` or `delete`; one that is not granted ends the whole
  # call.
  # Durability: as asked for, when this returns `applied`.
  # Errors: INVALID_ARGUMENT for no operation, an operation that is `unset`, a key that occurs
  # twice, or a token of another length or with other operations than before; BATCH_TOO_LARGE past
  # `Limits.batchOperations` or `Limits.batchBytes`; VALUE_TOO_LARGE, QUOTA_EXCEEDED, NO_SPACE,
  # READ_ONLY. A batch that only removes works when the disk is full or a quota is used up; with a
  # token it takes a little room.

  writer @7 WriterParams -> WriterResults;
  # Begins to write a value of any size up to `Limits.largeValueBytes`, in chunks.
  #
  # Nothing of it is visible, and the precondition is not judged, before `Writer.done`. A quota on
  # bytes is: what the key holds already is counted as replaced. Where that may not be told, because
  # the caller has neither get nor list on the key, only what comes in parts is held against a quota
  # before `done`.
  #
  # Rights: as for `put`; they are asked for here, at each `write` and at `done`. Durability: none.
  # Errors: VALUE_TOO_LARGE and QUOTA_EXCEEDED where `bytes` already tells; READ_ONLY; OVERLOADED
  # past `Limits.streams`.

  reader @8 ReaderParams -> ReaderResults;
  # Begins to read a value of any size, in parts that the caller asks for.
  #
  # The reader is for what the key holds at the time of this call. It pins nothing: once that was
  # replaced or removed, its `read` answers `changed`.
  #
  # Rights: get; it is asked for here and at each `read`. Durability: none, as for `get`.
  # Errors: OVERLOADED past `Limits.streams`.

  restrict @9 RestrictParams -> RestrictResults;
  # Returns a directory that can do less than this one, and what takes it away again.
  #
  # It can never do more than this directory: it lies within its prefix, has no right that it lacks,
  # and ends when it ends. Nothing is stored: it is gone with the connection.
  #
  # Rights: this directory and the policy grant the caller some right on some key that is below
  # `prefix`.
  # Durability: none.
  # Errors: OVERLOADED past `Limits.restrictions`.

  usage @10 UsageParams -> UsageResults;
  # Tells how much is stored, and how much may be.
  #
  # Rights: list on all of `prefix`: ACCESS_DENIED if a part of it is not granted.
  # Durability: none; what is under way counts as done.

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

      large @3 :Value;
      # The key holds a value that is longer than `Limits.valueBytes`, and it was asked for. `data`
      # is empty and was not verified; a `reader` reads it. Where only metadata is asked for such a
      # value is a `value` like any other.
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

  struct GetManyParams @0xaab176e29934f3db {
    keys @0 :List(Text);
    # The keys to read. The same one may occur more than once. None is answered with none.

    metadataOnly @1 :Bool;
    # As `GetParams.metadataOnly`, for all of them.
  }

  struct GetManyResults @0xcf7ca876c13a16fb {
    entries @0 :List(GetResults);
    # What `get` would answer, one for each of the first keys, in their order. Fewer than were asked
    # for means that the caller asks again, from the first key that has no entry.
  }

  struct CommitParams @0xe3a9be07eb986bbf {
    operations @0 :List(Operation);
    # What to do, 1 to `Limits.batchOperations` operations, each on a key of its own.

    durability @1 :Durability;
    # What must be true before the answer `applied`.

    token @2 :Data;
    # Empty, or 16 bytes that the client chose at random for this batch. The same token from the
    # same service, with the same operations in the same directory, answers what the first one
    # answered and applies nothing: also on another connection, and after a restart of the server. A
    # batch that was refused or answered `conflict` or `dataLoss` is not remembered: it applied
    # nothing, and is judged anew. `indeterminate` is remembered until the server restarts, which
    # decides it.
    #
    # Remembered are at least the last 1,024 batches with a token that the store applied, if one
    # service sent all; of several, the last ones of each, up to an even share, which those that it
    # has under way count to. With a token that was forgotten a batch is applied again.
    #
    # Where a loss of data may have taken what is to be remembered, a batch that is not remembered
    # is answered `dataLoss` with 4294967295, until the store has applied 1,024 newer ones, which a
    # restart may begin to count anew: nothing happened now, and whether it did before is not known.
    # Its keys may tell. Sent again with its token it is taken for a new one, once it was answered
    # so on the same connection, or twice. Who was is remembered for 1,280 tokens, an even share of
    # them for each service, until the server restarts.
    #
    # A batch that is remembered from a volume that was salvaged into the store's is answered in the
    # same way: it was applied there, and the versions that it gave are not those of its keys here.
  }

  struct CommitResults @0xb108bc75ca4e379f {
    union {
      indeterminate @0 :Void;
      # The batch was begun and could not be confirmed: all of it may be found after the next
      # replay, or nothing. The store takes no writes from here on.

      applied @1 :List(UInt64);
      # All of it happened. For each operation, in their order, the version that it gave its key; 0
      # for a `delete`, whether there was anything to remove or not.

      conflict @2 :Conflict;
      # A precondition does not hold; nothing happened.

      dataLoss @3 :UInt32;
      # The key of the operation with this index, from 0, is damaged, so its precondition cannot be
      # told; nothing happened. 4294967295 is no index: whether this batch was applied when it was
      # sent before cannot be told, see `CommitParams.token`; this time nothing happened.
    }
  }

  struct WriterParams @0x8f15dd6e0aaeedda {
    key @0 :Text;
    # The key to write.

    precondition @1 :Precondition;
    # What must hold of the key when `Writer.done` is called; null is `any`.

    durability @2 :Durability;
    # What must be true before the answer to `Writer.done`.

    bytes @3 :UInt64;
    # How long the value will be, as far as the caller knows: what is longer than may be is refused
    # at once. Whether the volume has room is told while it is written, for that may change. 0 if it
    # is not known. It binds to nothing.
  }

  struct WriterResults @0xbb7937f1c70af78a {
    writer @0 :Writer;
    # The capability. Never null in a result, so calls may be pipelined on it.
  }

  struct ReaderParams @0x8fd80735c82eb1eb {
    key @0 :Text;
    # The key to read.
  }

  struct ReaderResults @0xb900489a613df830 {
    reader @0 :Reader;
    # The capability. Never null in a result, so calls may be pipelined on it. That the key is
    # absent or damaged is told by its methods.
  }

  struct RestrictParams @0x94dc6d82f1bda09b {
    prefix @0 :Text;
    # A relative key: the directory shall be for the keys below it, and its keys relative to it.
    # Empty for all that this one covers.

    rights @1 :Rights;
    # The most that it shall be good for. A right that this directory lacks has no effect.

    expiryMillis @2 :UInt64;
    # After so many milliseconds, by the server's clock, it answers EXPIRED, and so does all that
    # was derived from it. 0 for as long as this directory lasts.
  }

  struct RestrictResults @0x9d291937dc52ec21 {
    directory @0 :Directory;
    # The capability. Never null in a result, so calls may be pipelined on it.

    revoker @1 :Revoker;
    # What revokes it. Never null in a result. Dropping it leaves the directory as it is.
  }

  struct UsageParams @0xc1305d5729a7c90b {
    prefix @0 :Text;
    # A relative key: what that key and those beneath it hold is counted. Empty counts what the
    # directory's own prefix, as a key, and all beneath it hold.
  }

  struct UsageResults @0xc5341c19a9bdb816 {
    bytes @0 :UInt64;
    # What the keys and values take together: for each key its length, as a whole path, and the
    # length of its value. What the volume spends on copies and records is not in it.

    keys @1 :UInt64;
    # How many keys there are.

    quotas @2 :List(Quota);
    # Every quota of today's policy that a write to some key in the prefix is charged to, in the
    # order of their prefixes.
  }

  struct SyncParams @0xf048819d6cc50a4d {}

  struct SyncResults @0xc54ac866ec4bae80 {
    union {
      indeterminate @0 :Void;
      # Some of those writes may be lost. Where the store takes no writes from here on, every later
      # `sync` on this connection answers the same; where it goes on, this tells of the loss, and a
      # later one speaks of later writes.

      durable @1 :Void;
      # All of those writes survive a power cut.
    }
  }
}

interface Writer @0x92380b7c274eba11 {
  # One value on its way in. Dropping the capability, or losing the connection, abandons it: nothing
  # of it is ever visible, and the space that it took is given back.
  #
  # Every method may answer what `Directory.put` may, and REVOKED and EXPIRED where the directory
  # that it came from would. After an exception the writer is of no more use.

  write @0 WriteParams -> stream;
  # Appends to the value. It returns once the server has room for more, so a client need not wait
  # for one before it sends the next, within `Limits.bytesInFlight`. One that failed makes all later
  # ones and `done` fail. One that came is part of the value even if its call was finished early.
  #
  # Rights: as for `Directory.writer`. Durability: none.
  # Errors: VALUE_TOO_LARGE past `Limits.largeValueBytes`; QUOTA_EXCEEDED, NO_SPACE, READ_ONLY;
  # INVALID_ARGUMENT after `done`.

  done @1 DoneParams -> Directory.PutResults;
  # Ends the value and makes it that of the key, at one moment, as `Directory.put` does. A value of
  # no chunk is an empty value. The writer is of no more use afterwards. Among the calls of the
  # connection it has its place when it is answered: a write that was sent behind it may come first.
  #
  # Rights: as for `Directory.writer`. Durability: as asked for there, when this returns `version`.
  # Errors: as for `write`.

  struct WriteParams @0xcb9fc17e9c830ce3 {
    chunk @0 :Data;
    # The next bytes, `Limits.valueBytes` at most. May be empty.
  }

  struct DoneParams @0xf581517e001aed79 {}
}

interface Reader @0xcc35f7e05e6ce620 $Cxx.name("ValueReader") {
  # One value on its way out, as the key held it when the reader was made. It is read in parts, in
  # any order, each asked for by the caller: who does not ask is sent nothing.
  #
  # Every method may answer ACCESS_DENIED, REVOKED and EXPIRED where the directory that it came from
  # would, SEALED and IO_ERROR.

  info @0 InfoParams -> InfoResults;
  # Tells what is there to be read.
  #
  # Rights: get. Durability: none.

  read @1 ReadParams -> ReadResults;
  # Reads a part.
  #
  # Rights: get. Durability: none.

  struct InfoParams @0x986bea31de1f7c3a {}

  struct InfoResults @0xe6478657780caee7 {
    union {
      dataLoss @0 :Void;
      # The key was damaged, as far as was known.

      absent @1 :Void;
      # There was no such key, and no damage hid one.

      value @2 :Value;
      # The version and the size of what it held; `data` is empty.
    }
  }

  struct ReadParams @0xde184c2eabef1c4b {
    offset @0 :UInt64;
    # Where to begin, in bytes from the start of the value.

    bytes @1 :UInt32;
    # How many bytes are wanted. 0, or more than `Limits.valueBytes`, means `Limits.valueBytes`.
  }

  struct ReadResults @0xc41525e24a52fe8e {
    union {
      dataLoss @0 :Void;
      # The part cannot be read back as it was written, or the key was damaged.

      changed @1 :Void;
      # The key was written or removed since the reader was made; that value is not to be had any
      # more.

      absent @2 :Void;
      # There was no such key.

      data @3 :Data;
      # The beginning of the part, verified: as much as the server has at hand. Empty only at the
      # end of the value and behind it, or of an empty value.
    }
  }
}

interface Revoker @0x8073034734ed4285 {
  # The power to end one directory that came from `restrict`.

  revoke @0 RevokeParams -> RevokeResults;
  # Ends that directory and all that was derived from it: directories, writers, readers. When this
  # returns, each call on them but `sync` answers REVOKED; calls that were let in before go on.
  # Repeatable.
  #
  # Rights: none beyond holding it. Durability: none.

  struct RevokeParams @0x8e3226bdeafceae7 {}

  struct RevokeResults @0xb3425007992a1fe4 {}
}

interface Admin @0xe2ed56231d424882 {
  # The administration of the whole store. Each method checks its right against today's policy, on
  # the prefix /state; none of them tells a value.
  #
  # Every method may answer ACCESS_DENIED; only further errors are told below.

  stats @0 StatsParams -> StatsResults;
  # Tells the figures of this moment. Answered in every mode, without device I/O.
  #
  # Rights: admin.stats. Durability: none.

  check @1 CheckParams -> CheckResults;
  # Reads every copy of all that the volume holds, and repairs what one copy still has. Returns at
  # the end, which may be hours away; the store serves meanwhile. A call while a check is under way
  # joins it, at the rate that was asked for last.
  #
  # Rights: admin.check. Durability: the repairs, when this returns.
  # Errors: READ_ONLY; IO_ERROR if the device failed, or the mode is `failed`; SEALED.

  checkpoint @2 CheckpointParams -> CheckpointResults;
  # Writes a checkpoint now, so that the next opening replays next to nothing.
  #
  # Rights: admin.checkpoint. Durability: the checkpoint, and with it every write that was
  # acknowledged before this call, when this returns.
  # Errors: READ_ONLY; NO_SPACE; IO_ERROR if the device failed, or the mode is `failed`; SEALED.

  reloadPolicy @3 ReloadPolicyParams -> ReloadPolicyResults;
  # Reads the policy anew from where the server has it, and puts it in force if it is sound.
  #
  # Rights: admin.policy, in the policy of before. Durability: none.

  audit @4 AuditParams -> AuditResults;
  # Returns a page of the audit records, oldest first.
  #
  # There are two rings, of a bounded size each: new records take the place of the oldest. A record
  # shows once it is on the medium: that of a mutation with the mutation, those of refusals some
  # seconds later at most. Records that damage took are missing from the numbers.
  #
  # Rights: admin.audit. Durability: none; the record of a mutation survives if and only if the
  # mutation does.
  # Errors: IO_ERROR if the device failed, or the mode is `failed`; SEALED; UNIMPLEMENTED where the
  # volume is too small for records.

  struct StatsParams @0xe30c47eedebf816a {}

  struct StatsResults @0xaa2e4f0c592672e7 {
    counters @0 :List(Counter);
    # The figures, in no order. A name keeps its meaning; which names there are may change with each
    # release.
  }

  struct CheckParams @0xec05ffcca5c8bd99 {
    bytesPerSecond @0 :UInt64;
    # How fast to read at most, over all copies. 0 for as fast as it goes.
  }

  struct CheckResults @0xa99730f88aa7eb0d {
    bytesRead @0 :UInt64;
    # What was read, over all copies.

    groups @1 :UInt64;
    # Groups of records that verify in one copy at least.

    repaired @2 :UInt64;
    # Copies that did not verify and were written again from another one.

    damaged @3 :UInt64;
    # What verifies in no copy, and is lost: groups of the checkpoint; and live values and audit records
    # or, where these are more, gaps in the log that this start has not told. Where groups are missing
    # that the next start would read, a checkpoint is written in their place. 0 and `repaired` 0 mean
    # that all is well.
  }

  struct CheckpointParams @0xef48e25e40e10711 {}

  struct CheckpointResults @0xccdd3618324d5ee4 {}

  struct ReloadPolicyParams @0xbb6d8fb7a9304838 {}

  struct ReloadPolicyResults @0xf128d1c55edd6cd8 {
    union {
      refused @0 :Text;
      # The policy was not taken, and the one of before stays in force. Why, for people, with the
      # place in the file.

      loaded @1 :Void;
      # The policy is in force, for every connection and capability there is.
    }
  }

  struct AuditParams @0xaca1009f7251461e {
    ring @0 :AuditRing;
    # Which records.

    after @1 :UInt64;
    # Only records with a greater sequence number. 0 starts at the oldest.

    limit @2 :UInt32;
    # The most records wanted. 0, or more than `Limits.listEntries`, means `Limits.listEntries`. A
    # page may hold fewer.
  }

  struct AuditResults @0xe4bd245fa459106d {
    records @0 :List(AuditRecord);
    # The page, in the order of sequence numbers.

    next @1 :UInt64;
    # The sequence number to be passed as `after` for the next page; 0 at the end.

    oldest @2 :UInt64;
    # The sequence number of the oldest record that the ring still holds; 0 if it holds none. More
    # than `after + 1` means that records in between are gone.
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

struct Operation @0x8ce4891fe67f5849 {
  # One operation of a batch.

  key @0 :Text;
  # The key that it is about.

  precondition @1 :Precondition;
  # What must hold of the key before the batch; null is `any`. If one of them does not hold, nothing
  # of the batch happens.

  union {
    unset @2 :Void;
    # Nothing that can be done: INVALID_ARGUMENT. What an operation that was left out reads as.

    put @3 :Data;
    # Write this value, creating or replacing the key as a whole.

    delete @4 :Void;
    # Remove the key. It is no error if there is none.
  }
}

struct Conflict @0xc3a0593ecf96e98a {
  # Where a batch met what it did not expect.

  index @0 :UInt32;
  # The operation whose precondition does not hold, from 0. Others may not hold either.

  current @1 :Current;
  # What its key is instead.
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

    large @3 :Value;
    # As `GetResults.large`.
  }
}

struct Quota @0x81383518d959f603 {
  # A bound of the policy on what lies below a prefix, whoever wrote it. A maximum of 2^64 - 1 is no
  # bound of that kind.

  prefix @0 :Text;
  # The whole path of the prefix that it is about.

  bytesUsed @1 :UInt64;
  # What lies below it, counted as in `UsageResults.bytes`.

  bytesMax @2 :UInt64;
  # The most that may.

  keysUsed @3 :UInt64;
  # How many keys lie below it.

  keysMax @4 :UInt64;
  # The most that may.

  valueBytesMax @5 :UInt64;
  # The longest value that may be written below it.
}

struct Counter @0x85e33262aa0f3f91 {
  # One figure of the server.

  name @0 :Text;
  # Its name, with the unit last, such as "free_bytes"; figures of one name are told apart by labels
  # behind it, as in "mode{mode=\"healthy\"}".

  value @1 :UInt64;
  # The figure. One whose name, without labels, ends in "_total" only grows, from the start of the
  # server.
}

struct AuditRecord @0xab74237495719024 {
  # One mutation that was applied, or one request that was refused. Never a value.

  sequence @0 :UInt64;
  # Its number in its ring, from 1, without gaps in the life of the volume.

  unixMillis @1 :UInt64;
  # When it was, for people only: milliseconds since 1970 by the machine's clock, 0 if it has none.
  # The order is that of `sequence`.

  service @2 :Text;
  # The name of the service that asked; empty for a peer that the policy did not name.

  operation @3 :Text;
  # What was asked for, by the name of the right that it takes, as policies have it. Of a mutation
  # "put" or "delete", by what was done to the key, through whichever call. Of a refusal also "get",
  # "list" or one of administration, such as "admin.stats"; of `open` and `restrict` the first right
  # that was asked for, "get" if there was none; of `admin` itself "admin". A right that it takes
  # besides, as `get` for a precondition, is told in `rule` where that was what was missing.

  key @4 :Text;
  # The whole path of the key or prefix that it was about.

  rule @5 :Text;
  # Of a mutation the grant of the policy that allowed it; of a refusal what was missing.

  outcome @6 :AuditOutcome;
  # How it ended.

  repeats @7 :UInt32;
  # How many refusals followed this one, of the same service and operation if it can be told, and
  # have no record of their own.

  version @8 :UInt64;
  # Of a put the version that it gave the key; 0 of everything else.
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
  # 1,024. Most capabilities that one connection holds. Beyond: the connection ends, for the reason
  # OVERLOADED.

  bytesInFlight @10 :UInt32;
  # 2,097,152. Most bytes of calls of one connection that are not yet answered. Beyond: OVERLOADED.
  # While as many bytes of replies wait to be read, the server reads no further calls.

  connections @11 :UInt32;
  # 128. Most connections, over all clients; 96 of them of one service. Beyond: the new connection
  # ends at once.

  batchOperations @12 :UInt32;
  # 128. Most operations of one `commit`. Beyond: BATCH_TOO_LARGE.

  batchBytes @13 :UInt32;
  # 1,048,576. Most bytes of keys, as whole paths, and values of one `commit`; the volume's geometry
  # may allow less. Beyond: BATCH_TOO_LARGE.

  largeValueBytes @14 :UInt64;
  # Longest value that a writer takes, by the volume's geometry; 0 where writers are not served.
  # Beyond: VALUE_TOO_LARGE.

  streams @15 :UInt32;
  # 16. Most writers and readers, together, that one connection holds. Beyond: OVERLOADED.

  restrictions @16 :UInt32;
  # 256. Most directories from `restrict` that one connection holds; each counts until it and its
  # revoker and all that was derived from it are dropped. Beyond: OVERLOADED.
}

enum Feature @0x82516e546d8d1126 {
  # What a server may serve, beyond the first state of this schema; see `HelloResults.features`.

  describe @0;
  # `StateFs.describe`.

  admin @1;
  # `StateFs.admin` with `stats`, `check`, `checkpoint` and `reloadPolicy`.

  getMany @2;
  # `Directory.getMany`.

  commit @3;
  # `Directory.commit`, without a token.

  tokens @4;
  # `CommitParams.token`.

  restrict @5;
  # `Directory.restrict`.

  streams @6;
  # `Directory.writer` and `Directory.reader`.

  usage @7;
  # `Directory.usage`.

  audit @8;
  # `Admin.audit`.
}

enum AuditRing @0xecf1d235146043cc {
  # The two rings of audit records.

  mutations @0;
  # What was written and removed: one record for each key, a value of many chunks when it becomes
  # visible. A removal in a batch, and a `strict` one, has one whether or not there was something to
  # remove, but for a batch that writes nothing: one without a token, and not `strict`, whose keys are
  # all absent already.

  denials @1;
  # What the policy or a quota refused. Refusals are written together, once in a few seconds at
  # most: the same one in a row is one record then, and those of one service and operation that are
  # too many for one write are only counted, in `AuditRecord.repeats`. A crash may lose those that were not yet written.
}

enum AuditOutcome @0x8bf99578ad3ab38d {
  # How an audited request ended.

  unknown @0;
  # Never sent. What a missing answer reads as.

  applied @1;
  # It happened.

  denied @2;
  # It was refused.
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
  # VALUE_TOO_LARGE, failed. A value passes `Limits.valueBytes`, `Limits.largeValueBytes`, or the
  # quota on single values.

  batchTooLarge @4;
  # BATCH_TOO_LARGE, failed. A batch passes `Limits.batchOperations` or `Limits.batchBytes`.

  quotaExceeded @5;
  # QUOTA_EXCEEDED, failed. The write would pass a quota on bytes or keys. `delete` still works.

  noSpace @6;
  # NO_SPACE, failed. The volume is full. `delete` makes room, and the state ends by itself. After a
  # loss of data a full volume may refuse deletes too; a salvage into a new one ends that.

  readOnly @7;
  # READ_ONLY, failed. The store takes no writes; the text is the reason that `health` tells.

  sealed @8;
  # SEALED, failed. The volume's key has not been given.

  ioError @9;
  # IO_ERROR, failed. The device failed a read, or the store is in the mode `failed`; the text is
  # the reason that `health` tells. Whether the key is damaged is not known: that is `dataLoss`.

  revoked @10;
  # REVOKED, failed. The capability, or one that it was derived from, was revoked.

  expired @11;
  # EXPIRED, failed. The time of the capability, or of one that it was derived from, is over.

  overloaded @12;
  # OVERLOADED, overloaded. The connection or its service is at a limit of its own, or the server is
  # out of memory for it. Nothing was applied; the same call may succeed later.

  unimplemented @13;
  # UNIMPLEMENTED, unimplemented. An unknown method, union member, enumerant or feature.

  invalidArgument @14;
  # INVALID_ARGUMENT, failed. A parameter other than a key cannot be read or has no meaning.
}
