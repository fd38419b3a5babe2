use super::*;
use alloc::collections::BTreeMap;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// Keys of all lengths that share much, little or nothing.
    fn key(&mut self) -> Vec<u8> {
        let stems = [0, 0, 3, 40, 200, 254];
        let stem = stems[usize::try_from(self.roll(6)).unwrap()];
        let more = [1, 1, 1, 2, 55][usize::try_from(self.roll(5)).unwrap()];
        let mut key = vec![b'a'; stem];
        for _ in 0..more.min(KEY_BYTES_MAX - stem) {
            key.push(u8::try_from(b'a' as u64 + self.roll(4)).unwrap());
        }
        key
    }

    fn entry(&mut self) -> Entry {
        let shift = |dice: &mut Self| u32::try_from(dice.roll(32)).unwrap();
        let (value, birth) = (shift(self), shift(self) * 2);
        let place = Place {
            segment: SegmentIndex(u32::try_from(self.roll(1 << 16)).unwrap()),
            offset: u32::try_from(self.roll(1 << OFFSET_BITS)).unwrap() * 8,
        };
        Entry {
            place,
            value_bytes: u32::MAX >> value,
            suspect: self.roll(2) == 0,
            birth: Birth(self.roll(1 << 31) << birth),
            upload: UploadId::of(Birth(self.roll(4))),
        }
    }
}

fn same(run: &Run, model: &BTreeMap<Vec<u8>, Entry>) {
    let mut reader = run.reader();
    for (key, entry) in model {
        assert_eq!(reader.step(), Some(*entry));
        assert_eq!(&reader.key, key);
        assert_eq!(run.get(key), Some(*entry));
    }
    assert_eq!(reader.step(), None);
}

#[test]
fn agrees_with_a_model_through_every_change_and_cut() {
    let (mut run, mut model) = (Run::default(), BTreeMap::new());
    let (mut dice, mut scratch, mut cuts) = (Dice(5), Vec::new(), 0);
    for step in 0..60_000 {
        let key = dice.key();
        assert_eq!(run.get(&key), model.get(&key).copied());
        if dice.roll(10) < 6 {
            let entry = dice.entry();
            assert_eq!(run.insert(&key, &entry, &mut scratch), model.insert(key, entry));
        } else {
            assert_eq!(run.remove(&key, &mut scratch), model.remove(&key));
        }
        if run.bytes().len() > RUN_BYTES_MAX {
            let (separator, right) = run.split();
            assert!(run.bytes().len() <= RUN_BYTES_MAX);
            assert!(right.bytes().len() <= RUN_BYTES_MAX);
            let others = model.split_off(&*separator);
            assert!(!model.is_empty() && !others.is_empty());
            same(&right, &others);
            same(&run, &model);
            cuts += 1;
            if cuts % 2 == 0 {
                (run, model) = (right, others);
            }
        }
        if step % 97 == 0 {
            same(&run, &model);
        }
    }
    assert!(cuts > 1000);
    run.suspect_all();
    model.values_mut().for_each(|entry| entry.suspect = true);
    same(&run, &model);
}

fn geometry() -> VolumeGeometry {
    VolumeGeometry::choose(64 << 20, 512, 4096, 2).unwrap()
}

/// A run of entries that the volume can have.
fn sample() -> Run {
    let (mut run, mut dice) = (Run::default(), Dice(3));
    let (mut more, mut scratch) = (0, Vec::new());
    while run.bytes().len() < 400 {
        let (birth, upload) = (Birth(900 + dice.roll(70_000)), Birth(dice.roll(3)));
        let segment = SegmentIndex(u32::try_from(dice.roll(20)).unwrap());
        let place = Place { segment, offset: u32::try_from(dice.roll(9000)).unwrap() * 8 };
        let value_bytes = 1 + u32::try_from(dice.roll(400)).unwrap();
        let upload = UploadId::of(upload).filter(|_| more % 3 == 0);
        let entry = Entry { place, value_bytes, suspect: false, birth, upload };
        let key = format!("/state/{}/{more}", "long".repeat(more % 4)).into_bytes();
        run.insert(&key, &entry, &mut scratch);
        more += 1;
    }
    run
}

/// Reads bytes as a run: it makes sense, or it is refused.
fn parse(bytes: &[u8]) -> Option<Run> {
    let mut keys: Vec<(Vec<u8>, Entry)> = Vec::new();
    let mut before = Vec::new();
    let each = |key: &[u8], entry: &Entry| keys.push((key.to_vec(), *entry));
    let run = Run::parse(bytes, &mut before, &geometry(), each)?;
    assert!(keys.is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(keys.last().map(|(key, _)| key), Some(&before));
    same(&run, &keys.into_iter().collect());
    Some(run)
}

#[test]
fn hostile_bytes_are_refused_or_make_sense() {
    let run = sample();
    assert!(parse(run.bytes()).is_some_and(|read| read.bytes() == run.bytes()));
    for length in 0..run.bytes().len() {
        parse(&run.bytes()[..length]);
    }
    let mut refused = 0;
    for bit in 0..run.bytes().len() * 8 {
        let mut bad = run.bytes().to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        refused += u32::from(parse(&bad).is_none());
    }
    assert!(refused > 500, "{refused}");
    let mut dice = Dice(1);
    for _ in 0..100_000 {
        let mut bad = run.bytes().to_vec();
        for _ in 0..1 + dice.roll(4) {
            let at = usize::try_from(dice.roll(bad.len() as u64)).unwrap();
            bad[at] = u8::try_from(dice.roll(256)).unwrap();
        }
        parse(&bad);
    }
}

#[test]
fn each_rule_of_a_run_is_checked() {
    let (bytes, key) = (|parts: &[&[u8]]| parts.concat(), b"/state/k");
    let base = 5_u64.to_le_bytes();
    let entry = |shared: u8, sizes: u8, place: u64, numbers: &[u8], suffix: &[u8]| {
        let head = [shared, u8::try_from(suffix.len()).unwrap(), sizes];
        [&head[..], &place.to_le_bytes()[..5], numbers, suffix].concat()
    };
    let place = 3 << OFFSET_BITS | 16;
    let good = entry(0, 0, place, &[100, 1], key);
    let next = entry(7, 0, place, &[100, 1], b"l");
    let run = parse(&bytes(&[&base, &good, &next])).unwrap();
    let at = Place { segment: SegmentIndex(3), offset: 128 };
    let (value_bytes, birth) = (100, Birth(6));
    let expected = Entry { place: at, value_bytes, suspect: false, birth, upload: None };
    assert_eq!((run.get(key), run.get(b"/state/l")), (Some(expected), Some(expected)));
    let bad: [(&str, Vec<u8>); 15] = [
        ("nothing", bytes(&[&base])),
        ("the first key shares", entry(1, 0, place, &[100, 1], key)),
        ("the same key", entry(8, 0, place, &[100, 1], b"")),
        ("a lesser key", entry(7, 0, place, &[100, 1], b"j")),
        ("shared bytes said again", entry(6, 0, place, &[100, 1], b"/l")),
        ("shares more than there is", entry(9, 0, place, &[100, 1], b"l")),
        ("a bit that means nothing", entry(7, 1 << 7, place, &[100, 1], b"l")),
        ("a length in too many bytes", entry(7, 1, place, &[100, 0, 1], b"l")),
        ("a birth in too many bytes", entry(7, 1 << 2, place, &[100, 1, 0], b"l")),
        ("a birth past the end", entry(7, 7 << 2, place, &[[255; 9], [1; 9]].concat()[..9], b"l")),
        ("no such segment", entry(7, 0, 1 << (OFFSET_BITS + 15), &[100, 1], b"l")),
        ("out of its segment", entry(7, 0, (1 << OFFSET_BITS) - 1, &[100, 1], b"l")),
        ("a value too long", entry(7, 2, place, &[1, 0, 1, 1], b"l")),
        ("an upload 0", entry(7, 1 << 5, place, &[&[100, 1][..], &[0; 8]].concat(), b"l")),
        ("cut off", entry(7, 0, place, &[100, 1], b"l")[..10].to_vec()),
    ];
    for (why, second) in bad {
        let alone = why.starts_with("the first") || why == "nothing";
        let first: &[u8] = if alone { b"" } else { &good };
        assert!(parse(&bytes(&[&base, first, &second])).is_none(), "{why}");
    }
    let internal = entry(0, 0, place, &[100, 1], b"\0key");
    assert!(parse(&bytes(&[&base, &internal])).is_none(), "internal, and no chunk's");
    let mut long = Run::default();
    for number in 0..90 {
        long.insert(format!("/state/{number:02}").as_bytes(), &expected, &mut Vec::new());
        assert_eq!(parse(long.bytes()).is_some(), long.bytes().len() <= RUN_BYTES_MAX);
    }
    assert!(long.bytes().len() > RUN_BYTES_MAX);
    let before = &mut b"/state/k".to_vec();
    let read = Run::parse(&bytes(&[&base, &good]), before, &geometry(), |_, _| ());
    assert!(read.is_none(), "not above the run before");
}

#[test]
fn runs_are_joined_where_that_makes_one_of_half_the_size() {
    let (mut dice, mut joins) = (Dice(9), 0);
    for _ in 0..4000 {
        let mut models = [BTreeMap::new(), BTreeMap::new()];
        for _ in 0..8 {
            let key = dice.key();
            let right = usize::from(*key > b"aaaa"[..]);
            models[right].insert(key, dice.entry());
        }
        let runs = models.each_ref().map(|model| {
            let mut run = Run::default();
            for (key, entry) in model {
                run.insert(key, entry, &mut Vec::new());
            }
            run
        });
        let [left, right] = models;
        let model = left.into_iter().chain(right).collect();
        let together = runs.iter().map(|run| run.bytes().len()).sum();
        if let Some(joined) = runs[0].joined(&runs[1]) {
            assert!(joined.bytes().len() <= (RUN_BYTES_MAX / 2).min(together));
            same(&joined, &model);
            joins += 1;
        }
    }
    assert!(joins > 100, "{joins}");
}
