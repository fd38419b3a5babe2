//! Would a second head for what cleaning moves pay? A log of segments with equal records, cleaned where least lives, written with
//! one head and with two: `cargo run --release -p recovery-model --example heads`.
//!
//! Printed is what is written for each record that a client writes. A zone has 128 segments of which a sixth holds checkpoints
//! and stays free, as with records of 100 bytes; two heads keep one segment more, and clean earlier for it.

#![forbid(unsafe_code)]

/// Segments of a zone that hold records.
const SEGMENTS: usize = 108;
/// Records of a segment.
const RECORDS: usize = 500;
/// Segments of a zone.
const ZONE_SEGMENTS: usize = 128;
/// Segments that stay free for one head; two keep one more.
const FREE: usize = 4;

/// Which keys clients write: of a hundred writes `writes` go to `keys` of a hundred keys.
#[derive(Clone, Copy)]
struct Skew {
    writes: usize,
    keys: usize,
}

/// Segments by the keys that were written to them, in order; a key lives where it was written last.
struct Log {
    place: Vec<Option<usize>>,
    segments: Vec<Vec<usize>>,
    live: [usize; SEGMENTS],
    free: Vec<usize>,
    heads: [Option<usize>; 2],
    random: u64,
}

impl Log {
    fn new(keys: usize) -> Self {
        Self {
            place: vec![None; keys],
            segments: vec![Vec::new(); SEGMENTS],
            live: [0; SEGMENTS],
            free: (0..SEGMENTS).collect(),
            heads: [None; 2],
            random: 88_172_645_463_325_252,
        }
    }

    /// Xorshift: the figures are the same at each run.
    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % end
    }

    fn write(&mut self, key: usize, head: usize) {
        let open = self.heads[head].filter(|at| self.segments[*at].len() < RECORDS);
        let at = open.unwrap_or_else(|| self.free.pop().expect("cleaning keeps some free"));
        self.heads[head] = Some(at);
        if let Some(before) = self.place[key].replace(at) {
            self.live[before] -= 1;
        }
        self.segments[at].push(key);
        self.live[at] += 1;
    }

    /// Moves what lives in the segment where least does; yields how many records that were.
    fn clean(&mut self, head: usize) -> usize {
        let closed = |at: &usize| !self.heads.contains(&Some(*at)) && !self.free.contains(at);
        let victim = (0..SEGMENTS).filter(closed).min_by_key(|at| self.live[*at]);
        let victim = victim.expect("there are more segments than heads");
        let mut moves = 0;
        for key in std::mem::take(&mut self.segments[victim]) {
            if self.place[key] == Some(victim) {
                self.write(key, head);
                moves += 1;
            }
        }
        self.free.push(victim);
        moves
    }
}

/// Yields the records written for each of the clients', where keys take `percent` of a zone.
fn amplification(percent: usize, skew: Skew, heads: usize) -> f64 {
    let keys = ZONE_SEGMENTS * RECORDS * percent / 100;
    let mut log = Log::new(keys);
    let (mut writes, mut moves) = (0, 0);
    for n in 0..13 * keys {
        let hot = keys * skew.keys / 100;
        let key = match n {
            _ if n < keys => n,
            _ if log.below(100) < skew.writes => log.below(hot),
            _ => hot + log.below(keys - hot),
        };
        log.write(key, 0);
        // Behind half of the time the log is as it will stay.
        let counts = n >= 7 * keys;
        writes += usize::from(counts);
        while log.free.len() < FREE + heads - 1 {
            let moved = log.clean(heads - 1);
            moves += if counts { moved } else { 0 };
        }
    }
    (writes + moves) as f64 / writes as f64
}

fn main() {
    println!("writes to keys (%) | live records (% of a zone): one head, two");
    for (writes, keys) in [(50, 50), (80, 20), (90, 10), (99, 1)] {
        print!("{writes:>2} to {keys:>2}");
        for percent in [40, 50, 60, 70, 75] {
            let [one, two] =
                [1, 2].map(|heads| amplification(percent, Skew { writes, keys }, heads));
            print!(" | {percent}: {one:.2}, {two:.2}");
        }
        println!();
    }
}
