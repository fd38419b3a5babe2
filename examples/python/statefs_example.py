"""A client of StateFS in Python: from the schema alone, over pycapnp.

    python statefs_example.py SOCKET SCHEMA

SOCKET is the daemon's, SCHEMA the path of schema/statefs.capnp; its imports lie in the folder
`include` beside it. The policy has to grant get, list, put and delete on /state/polyglot, and
nothing on /state/forbidden. Every line is checked before it is printed.
"""

import asyncio
import os
import re
import sys

import capnp


class Refused(Exception):
    """The server refused: `code` is a stable word of the schema's ErrorCode, such as NO_SPACE."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code


# What the library puts before the peer's words, the code, and what else there is to tell.
REASON = re.compile(r"(?:remote exception: )?([A-Z_]+)(?:$|: (.*))", re.DOTALL)


async def answer(call):
    """Waits for a call; turns an exception whose reason is a code into Refused."""
    try:
        return await call
    except capnp.KjException as error:
        # A connection that ended leaves a write indeterminate, also where a code tells why it ended:
        # then every open call fails with that code.
        ended = error.type == capnp.KjException.Type.DISCONNECTED
        reason = None if ended else REASON.fullmatch(error.description)
        if reason is None:
            # Not the store's word on this call.
            raise
        raise Refused(*reason.groups()) from None


async def refused(code, call):
    """Demands that a call is refused with this code."""
    try:
        await answer(call)
    except Refused as refusal:
        assert refusal.code == code, refusal
    else:
        raise AssertionError(f"it was not refused with {code}")


async def main(socket, schema_path):
    include = os.path.join(os.path.dirname(os.path.abspath(schema_path)), "include")
    schema = capnp.load(schema_path, imports=[include])
    connection = await capnp.AsyncIoStream.create_unix_connection(socket)
    store = capnp.TwoPartyClient(connection).bootstrap().cast_as(schema.StateFs)

    hello = await answer(store.hello(clientName="statefs_example.py", protocol=1))
    assert hello.protocol == 1 and hello.limits.keyBytes == 255, hello
    print(f"hello: {hello.softwareVersion} knows this program as {hello.serviceName}")

    # Calls may be made on a capability that is still on its way: both take one round trip.
    rights = {"get": True, "list": True, "put": True, "delete": True}
    directory = store.open(prefix="/state/polyglot", rights=rights).directory
    written = await answer(directory.put(key="python/greeting", value=b"hello\x00world"))
    # A union tells what happened. What a broken peer leaves out reads as the member that claims
    # least, so ask for what is expected, never for the absence of a fault.
    assert written.which() == "version", written
    print("put: durable when it returned")

    read = await answer(directory.get(key="python/greeting"))
    assert read.which() == "value" and read.value.data == b"hello\x00world", read
    assert read.value.version == written.version
    absent = await answer(directory.get(key="python/none"))
    assert absent.which() == "absent", absent
    print("get: the bytes that were put, and absence told apart from loss")

    condition = {"version": written.version}
    second = await answer(
        directory.put(key="python/greeting", value=b"again", precondition=condition)
    )
    assert second.which() == "version", second
    third = await answer(
        directory.put(key="python/greeting", value=b"lost update", precondition=condition)
    )
    assert third.which() == "conflict" and third.conflict.version == second.version, third
    print("conflict: the second writer of one version is told the version that won")

    operations = [
        {"key": "python/batch/a", "put": b"1", "precondition": {"absent": None}},
        {"key": "python/batch/b", "put": b"2"},
        {"key": "python/greeting", "delete": None},
    ]
    batch = await answer(directory.commit(operations=operations))
    assert batch.which() == "applied" and len(batch.applied) == 3, batch
    assert batch.applied[0] != 0 and batch.applied[2] == 0, batch
    again = await answer(directory.commit(operations=operations))
    assert again.which() == "conflict" and again.conflict.index == 0, again
    several = await answer(directory.getMany(keys=["python/batch/b", "python/greeting"]))
    assert [entry.which() for entry in several.entries] == ["value", "absent"], several
    print("commit: all of a batch, or nothing")

    large = bytes(range(256)) * 1000
    writer = directory.writer(key="python/large").writer
    # Each returns once there is room for more; a failed one makes the last call fail.
    for start in range(0, len(large), 60_000):
        await writer.write(chunk=large[start : start + 60_000])
    done = await answer(writer.done())
    assert done.which() == "version", done
    whole = await answer(directory.get(key="python/large"))
    assert whole.which() == "large" and whole.large.bytes == len(large), whole
    reader, back = directory.reader(key="python/large").reader, b""
    while True:
        part = await answer(reader.read(offset=len(back)))
        assert part.which() == "data", part
        if not part.data:
            break
        back += part.data
    assert back == large
    assert (await answer(directory.delete(key="python/large"))).which() == "deleted"
    changed = await answer(reader.read())
    assert changed.which() == "changed", changed
    print("writer and reader: a value of any size, visible only whole")

    less = directory.restrict(prefix="python/batch", rights={"get": True})
    deeper = await answer(less.directory.get(key="a"))
    assert deeper.which() == "value", deeper
    await refused("ACCESS_DENIED", less.directory.put(key="a", value=b"x"))
    await answer(less.revoker.revoke())
    await refused("REVOKED", less.directory.get(key="a"))
    print("restrict: less of everything, until it is revoked")

    keys, after = [], ""
    while True:
        page = await answer(directory.list(prefix="python", after=after, limit=1, keysOnly=True))
        assert page.intact, "what is missing would be told"
        keys += [entry.key for entry in page.entries]
        after = page.next
        if not after:
            break
    assert keys == ["python/batch/a", "python/batch/b"], keys
    print("list: page by page, in the order of keys")

    await refused("ACCESS_DENIED", store.open(prefix="/state/forbidden", rights=rights))
    await refused("INVALID_KEY", directory.put(key="python//x", value=b""))
    print("denial: by its code, whatever is there")


if __name__ == "__main__":
    asyncio.run(capnp.run(main(sys.argv[1], sys.argv[2])))
