# The interfaces of the interoperability tests: one method for each thing a peer can ask for.
@0xb3f1a0c2d4e5f607;

interface Echo {
  echo @0 (data :Data) -> (data :Data);
  makeCounter @1 (start :UInt64) -> (counter :Counter);
  makeCounterSlow @2 (start :UInt64, ticks :UInt32) -> (counter :Counter);
  # Answers after `ticks` turns of other tasks.
  write @3 (chunk :Data) -> stream;
  # An empty chunk fails.
  done @4 () -> (total :UInt64);
  fail @5 (why :Text, kind :UInt8, ticks :UInt32) -> (counter :Counter);
  # Fails with kind 0 failed, 1 overloaded, 2 disconnected, 3 unimplemented.
  isMine @6 (counter :Counter) -> (mine :Bool, value :UInt64);
  # Whether a capability passed back is the server's own object; adds 1000 to it.
  callMe @7 (callback :Callback, n :UInt32) -> (sum :UInt64);
  bounce @8 (callback :Callback) -> (callback :Callback);
  # Returns the caller's own capability.
  live @9 () -> (n :UInt32);
  # Counters that exist.
  never @10 () -> (counter :Counter);
  cancelled @11 () -> (n :UInt32);
  # How many `never` were cancelled.
  counters @12 (n :UInt32) -> (counters :List(Counter));
  blob @13 (bytes :UInt32, ticks :UInt32) -> (data :Data);
  stash @14 (callback :Callback) -> ();
  unstash @15 () -> (callback :Callback);
  # Waits for a `stash`.
  early @16 (start :UInt64) -> (counter :Counter);
  # Opens its result for pipelining, and never returns.
  again @17 (ticks :UInt32) -> (echo :Echo);
  # Another such object, after `ticks` turns of other tasks.
}

interface Counter {
  add @0 (n :UInt64) -> (value :UInt64);
  child @1 () -> (counter :Counter);
}

interface Callback {
  poke @0 (n :UInt32) -> (r :UInt64);
  # Twice n, plus 1000 for each poke before that had a greater n.
}
