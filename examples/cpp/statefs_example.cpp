// A client of StateFS in C++: from the schema alone, over the libcapnp of the distribution.
//
//     statefs_example SOCKET
//
// The policy has to grant get, list, put and delete on /state/polyglot, and nothing on
// /state/forbidden. Every line is checked before it is printed.
//
// To build it, with `schema` as the folder of statefs.capnp:
//
//     capnp compile -o c++:. --no-standard-import -I schema/include --src-prefix=schema schema/statefs.capnp
//     g++ -std=c++17 -I. statefs_example.cpp statefs.capnp.c++ -lcapnp-rpc -lcapnp -lkj-async -lkj

#include <cstring>
#include <iostream>

#include <capnp/ez-rpc.h>
#include <kj/debug.h>

#include "statefs.capnp.h"

namespace {

using statefs::Directory;
using statefs::StateFs;

capnp::Data::Reader bytes(const char *text) {
  return kj::arrayPtr(reinterpret_cast<const capnp::byte *>(text), std::strlen(text));
}

void say(const char *text) { std::cout << text << std::endl; }

// The code of a refusal, such as NO_SPACE; empty if the store did not refuse: the connection ended,
// say, and a write is then indeterminate.
kj::String code(const kj::Exception &exception) {
  // Also where a code tells why it ended: then every open call fails with that code.
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return kj::str();
  kj::StringPtr reason = exception.getDescription();
  // The library puts words of its own before the peer's.
  const kj::StringPtr words = "remote exception: ";
  if (reason.startsWith(words)) reason = reason.slice(words.size());
  size_t end = reason.findFirst(':').orDefault(reason.size());
  for (char letter : reason.slice(0, end)) {
    if (letter != '_' && (letter < 'A' || letter > 'Z')) return kj::str();
  }
  return kj::heapString(reason.slice(0, end));
}

// The code with which `call` is refused; it is a fault if it is not.
template <typename Call> kj::String refusal(Call &&call) {
  KJ_IF_MAYBE(exception, kj::runCatchingExceptions(kj::fwd<Call>(call))) {
    return code(*exception);
  }
  KJ_FAIL_REQUIRE("it was not refused");
}

void allow(statefs::Rights::Builder rights) {
  rights.setGet(true);
  rights.setList(true);
  rights.setPut(true);
  rights.setDelete(true);
}

// Writes with a precondition on the version; yields whether the key still had it.
bool replace(Directory::Client &directory, capnp::Data::Reader value, uint64_t version,
             kj::WaitScope &scope) {
  auto put = directory.putRequest();
  put.setKey("cpp/greeting");
  put.setValue(value);
  put.initPrecondition().setVersion(version);
  auto result = put.send().wait(scope);
  KJ_REQUIRE(result.isVersion() || result.isConflict());
  return result.isVersion();
}

void batch(Directory::Client &directory, kj::WaitScope &scope) {
  auto commit = directory.commitRequest();
  auto operations = commit.initOperations(3);
  operations[0].setKey("cpp/batch/a");
  operations[0].setPut(bytes("1"));
  operations[0].initPrecondition().setAbsent();
  operations[1].setKey("cpp/batch/b");
  operations[1].setPut(bytes("2"));
  operations[2].setKey("cpp/greeting");
  operations[2].setDelete();
  auto result = commit.send().wait(scope);
  KJ_REQUIRE(result.isApplied());
  auto versions = result.getApplied();
  KJ_REQUIRE(versions.size() == 3 && versions[0] != 0 && versions[2] == 0);
}

void large(Directory::Client &directory, kj::WaitScope &scope) {
  auto value = kj::heapArray<capnp::byte>(256000);
  for (size_t at = 0; at < value.size(); at++) value[at] = at * 7 + at / 256;
  auto begin = directory.writerRequest();
  begin.setKey("cpp/large");
  auto writer = begin.send().getWriter();
  const size_t most = 60000;
  for (size_t start = 0; start < value.size(); start += most) {
    auto write = writer.writeRequest();
    write.setChunk(value.slice(start, kj::min(start + most, value.size())));
    // It returns once there is room for more; a failed one makes the last call fail.
    write.send().wait(scope);
  }
  KJ_REQUIRE(writer.doneRequest().send().wait(scope).isVersion());
  auto get = directory.getRequest();
  get.setKey("cpp/large");
  auto whole = get.send().wait(scope);
  KJ_REQUIRE(whole.isLarge() && whole.getLarge().getBytes() == value.size());
  auto open = directory.readerRequest();
  open.setKey("cpp/large");
  // In C++ alone the interface `Reader` has another name, which what is generated has taken.
  statefs::ValueReader::Client reader = open.send().getReader();
  size_t offset = 0;
  while (true) {
    auto read = reader.readRequest();
    read.setOffset(offset);
    auto part = read.send().wait(scope);
    KJ_REQUIRE(part.isData());
    auto data = part.getData();
    if (data.size() == 0) break;
    KJ_REQUIRE(data == value.slice(offset, offset + data.size()));
    offset += data.size();
  }
  KJ_REQUIRE(offset == value.size());
  auto remove = directory.deleteRequest();
  remove.setKey("cpp/large");
  KJ_REQUIRE(remove.send().wait(scope).isDeleted());
  KJ_REQUIRE(reader.readRequest().send().wait(scope).isChanged());
}

void restrict(Directory::Client &directory, kj::WaitScope &scope) {
  auto request = directory.restrictRequest();
  request.setPrefix("cpp/batch");
  request.initRights().setGet(true);
  auto less = request.send();
  Directory::Client deeper = less.getDirectory();
  auto get = [&]() {
    auto get = deeper.getRequest();
    get.setKey("a");
    return get.send().wait(scope).isValue();
  };
  KJ_REQUIRE(get());
  auto denied = refusal([&]() {
    auto put = deeper.putRequest();
    put.setKey("a");
    put.send().wait(scope);
  });
  KJ_REQUIRE(denied == "ACCESS_DENIED", denied);
  less.getRevoker().revokeRequest().send().wait(scope);
  auto revoked = refusal([&]() { get(); });
  KJ_REQUIRE(revoked == "REVOKED", revoked);
}

void list(Directory::Client &directory, kj::WaitScope &scope) {
  kj::Vector<kj::String> keys;
  kj::String after = kj::str();
  do {
    auto list = directory.listRequest();
    list.setPrefix("cpp");
    list.setAfter(after);
    list.setLimit(1);
    list.setKeysOnly(true);
    auto page = list.send().wait(scope);
    KJ_REQUIRE(page.getIntact(), "what is missing would be told");
    for (auto entry : page.getEntries()) keys.add(kj::str(entry.getKey()));
    after = kj::str(page.getNext());
  } while (after.size() > 0);
  KJ_REQUIRE(kj::strArray(keys, " ") == "cpp/batch/a cpp/batch/b", kj::strArray(keys, " "));
}

void run(const char *socket) {
  capnp::EzRpcClient client(kj::str("unix:", socket).cStr());
  auto &scope = client.getWaitScope();
  auto store = client.getMain<StateFs>();

  auto hello = store.helloRequest();
  hello.setClientName("statefs_example");
  hello.setProtocol(1);
  auto server = hello.send().wait(scope);
  KJ_REQUIRE(server.getProtocol() == 1 && server.getLimits().getKeyBytes() == 255);
  std::cout << "hello: " << server.getSoftwareVersion().cStr() << " knows this program as "
            << server.getServiceName().cStr() << std::endl;

  // Calls may be made on a capability that is still on its way: both take one round trip.
  auto open = store.openRequest();
  open.setPrefix("/state/polyglot");
  allow(open.initRights());
  Directory::Client directory = open.send().getDirectory();
  auto put = directory.putRequest();
  put.setKey("cpp/greeting");
  put.setValue(bytes("hello"));
  auto written = put.send().wait(scope);
  // A union tells what happened. What a broken peer leaves out reads as the member that claims
  // least, so ask for what is expected, never for the absence of a fault.
  KJ_REQUIRE(written.isVersion());
  uint64_t version = written.getVersion();
  say("put: durable when it returned");

  auto get = directory.getRequest();
  get.setKey("cpp/greeting");
  auto read = get.send().wait(scope);
  KJ_REQUIRE(read.isValue() && read.getValue().getVersion() == version);
  KJ_REQUIRE(read.getValue().getData() == bytes("hello"));
  auto none = directory.getRequest();
  none.setKey("cpp/none");
  KJ_REQUIRE(none.send().wait(scope).isAbsent());
  say("get: the bytes that were put, and absence told apart from loss");

  KJ_REQUIRE(replace(directory, bytes("again"), version, scope));
  KJ_REQUIRE(!replace(directory, bytes("lost update"), version, scope));
  say("conflict: the second writer of one version loses");

  batch(directory, scope);
  say("commit: all of a batch, or nothing");
  large(directory, scope);
  say("writer and reader: a value of any size, visible only whole");
  restrict(directory, scope);
  say("restrict: less of everything, until it is revoked");
  list(directory, scope);
  say("list: page by page, in the order of keys");

  auto forbidden = refusal([&]() {
    auto request = store.openRequest();
    request.setPrefix("/state/forbidden");
    allow(request.initRights());
    request.send().wait(scope);
  });
  KJ_REQUIRE(forbidden == "ACCESS_DENIED", forbidden);
  auto invalid = refusal([&]() {
    auto request = directory.putRequest();
    request.setKey("cpp//x");
    request.send().wait(scope);
  });
  KJ_REQUIRE(invalid == "INVALID_KEY", invalid);
  say("denial: by its code, whatever is there");
}

} // namespace

int main(int count, char *arguments[]) {
  if (count != 2) {
    std::cerr << "usage: statefs_example SOCKET" << std::endl;
    return 2;
  }
  try {
    run(arguments[1]);
  } catch (const kj::Exception &exception) {
    std::cerr << kj::str(exception).cStr() << std::endl;
    return 1;
  }
  return 0;
}
