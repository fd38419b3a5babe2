#!/usr/bin/env python3
"""Dumps a StateFS volume as `statefs image dump` does, byte for byte. Usage: reader.py IMAGE

Written from FORMAT.md alone, whose sections the comments name: it is simple rather than fast, and changes nothing.
Exit 0: whole, 6: something acknowledged is lost, 1: nothing that can be read.
"""

import base64
import json
import sys
import zlib
from contextlib import suppress
from struct import Struct, pack, unpack, unpack_from

# BLAKE3: hash, keyed hash, key derivation.
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTED = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
QUARTERS = [[4 * row + (at + turn * row) % 4 for row in range(4)] for turn in (0, 1) for at in range(4)]
START, END, PARENT, ROOT, KEYED, CONTEXT, MATERIAL = 1, 2, 4, 8, 16, 32, 64
MASK, WIDE, PLAIN = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, pack("<8I", *IV)

def compress(cv, words, counter, count, flags):
    v = [*cv, *IV[:4], counter & MASK, counter >> 32, count, flags]
    for _ in range(7):
        for at, (a, b, c, d) in enumerate(QUARTERS):
            for word, first, second in ((words[2 * at], 16, 12), (words[2 * at + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & MASK
                v[d] = ((turned := v[d] ^ v[a]) >> first | turned << 32 - first) & MASK
                v[c] = (v[c] + v[d]) & MASK
                v[b] = ((turned := v[b] ^ v[c]) >> second | turned << 32 - second) & MASK
        words = [words[at] for at in PERMUTED]
    return [low ^ high for low, high in zip(v[:8], v[8:])]

def node(data, key, flags, chunk):
    """Yields the arguments of the last compression over `data`, which begins with chunk number `chunk`."""
    if len(data) > 1024:
        left = 1024 << (((len(data) - 1) // 1024).bit_length() - 1)
        halves = node(data[:left], key, flags, chunk), node(data[left:], key, flags, chunk + left // 1024)
        return key, [word for half in halves for word in compress(*half)], 0, 64, flags | PARENT
    cv, start = key, START
    blocks = [data[at:at + 64] for at in range(0, len(data), 64)] or [b""]
    for block in blocks[:-1]:
        cv, start = compress(cv, unpack("<16I", block), chunk, 64, flags | start), 0
    return cv, unpack("<16I", blocks[-1].ljust(64, b"\0")), chunk, len(blocks[-1]), flags | start | END

def blake3(data, key, flags):
    cv, words, chunk, count, last = node(data, unpack("<8I", key), flags, 0)
    return pack("<8I", *compress(cv, words, chunk, count, last | ROOT))

def derived(context, material):
    return blake3(material, blake3(context.encode(), PLAIN, CONTEXT), MATERIAL)

def siphash(key, message):
    """Yields SipHash-2-4 of a message of eight bytes."""
    v = [word ^ start for word, start in zip(key * 2, unpack(">4Q", b"somepseudorandomlygeneratedbytes"))]
    for word, last, rounds in ((message, 0, 2), (8 << 56, 0, 2), (0, 0xFF, 4)):
        v[2:] = v[2] ^ last, v[3] ^ word
        for a, b, turn, wide in ((0, 1, 13, 32), (2, 3, 16, 0), (2, 1, 17, 32), (0, 3, 21, 0)) * rounds:
            v[a] = v[a] + v[b] & WIDE
            v[b] = (v[b] << turn | v[b] >> 64 - turn) & WIDE ^ v[a]
            v[a] = (v[a] << wide | v[a] >> 64 - wide) & WIDE
        v[0] ^= word
    return v[0] ^ v[1] ^ v[2] ^ v[3]

class Refused(SystemExit):
    """There is no volume that can be read: ends the program with the reason and code 1."""

class Superblock:
    """One copy that verifies (section 3)."""
    def __init__(self, copy):
        (magic, version, flags, self.block, self.volume, self.sequence, mount, _, self.key, self.bytes, self.blocks,
         self.segments, self.copies, zero, self.durable, self.base, self.base_tag, replay, rollback, in_checkpoint,
         count) = unpack_from("<8sHHI16sQQ16s32sQIIB7sQQ16sQQII", copy)
        segment, room = self.block * self.blocks, (self.bytes // 4096 - 4) // max(self.copies, 1) * 4096
        uses = [unpack_from("<IIQ16s", copy, 256 + 32 * at) for at in range(min(count, 119))]
        tag = derived("StateFS v1 superblock", copy[:4080])[:16]
        if not (magic == b"StateFS1" and version == 2 and copy[4080:] == tag
                and not any((flags, rollback, *zero, *copy[176:256], *copy[4064:4080]))
                and max(self.sequence, self.durable, self.base, replay) <= 1 << 62 and mount < 1 << 31
                and self.block in (512, 4096) and self.bytes % 4096 == 0 and self.copies in (1, 2)
                and 8 <= self.segments <= 65536 and self.blocks >= 4 and segment <= 16 << 20
                and segment * self.segments <= room and in_checkpoint <= count <= 119
                and all(at < self.segments and start < self.blocks and end <= 1 << 62 for at, start, end, _ in uses)):
            raise Refused("reader: no superblock")
        self.checkpoint, self.log = uses[:in_checkpoint], uses[in_checkpoint:]

def superblocks(image):
    """Yields the copies that verify (sections 2, 3)."""
    size, found = len(image) // 4096 * 4096, []
    for copy in range(4):
        at = (0, 4096, size - 8192, size - 4096)[copy]
        with suppress(Refused):
            found.append(Superblock(image[at:at + 4096].ljust(4096, b"\0")))
            size = found[-1].bytes if found[-1].bytes <= len(image) else size
    return found

class Group:
    """A header that verifies, and the records of a copy that is whole (section 4)."""
    def __init__(self, volume, segment, block):
        self.whole, self.tag, sb = False, None, volume.sb
        for zone in volume.zones:
            at = zone + (segment * sb.blocks + block) * sb.block
            head = volume.image[at:at + 128]
            magic, version, flags, identity, epoch, *place = unpack_from("<4sHH16s16sII", head)
            first, last, count, records, previous, durable = unpack_from("<QQII16sQ", head, 48)
            blocks = -(-(128 + count) // sb.block)
            if (magic != b"SFG1" or version != 1 or flags > 1 or identity != sb.volume or place != [segment, block]
                    or not durable < first <= last <= 1 << 62 or block + blocks > sb.blocks
                    or blake3(head[:112], volume.header_key, KEYED)[:16] != head[112:] or self.tag not in (None, head[112:])):
                continue
            self.flags, self.epoch, self.segment, self.block, self.tag = flags, epoch, segment, block, head[112:]
            self.first, self.last, self.records, self.previous = first, last, records, previous
            self.durable, self.end = durable, block + blocks
            body = volume.image[at + 128:at + 128 + count]
            padding = volume.image[at + 128 + count:at + blocks * sb.block]
            if not any(padding) and blake3(head[24:56] + body, volume.payload_key, KEYED)[:16] == head[96:112]:
                self.whole, self.payload = True, body

class Volume:
    """What the newest superblock leads to: of each key segment, offset, size, birth, upload and doubt."""
    def __init__(self, image):
        self.image, copies = image, superblocks(image)
        self.sb = sb = max(copies, key=lambda copy: copy.sequence, default=None)
        if sb is None or sb.bytes > len(image):
            raise Refused("reader: no superblock, or a device that is smaller than its volume")
        self.header_key, self.payload_key, self.version_key = (
            derived(f"StateFS v1 {name}", sb.key) for name in ("group header", "group payload", "version"))
        self.evidence = max(copy.durable for copy in copies if copy.volume == sb.volume)
        self.zones = (8192, (2 + (sb.bytes // 4096 - 4) // 2) * 4096)[:sb.copies]
        self.index, self.uses, self.lost, self.absent = {}, [], False, False
        self.load()
        self.walk()
        for segment, start, _, epoch in sb.log:
            if all(known[2] != epoch for known in self.uses):
                self.uses = [known for known in self.uses if known[0] != segment or known[1] < start]
                self.uses.append((segment, start, epoch))

    def load(self):
        """Reads the checkpoint (section 8)."""
        want = self.sb.base + 1
        for segment, block, end, epoch in self.sb.checkpoint:
            while want <= end:
                group = Group(self, segment, block) if block < self.sb.blocks else None
                if not group or not group.whole or (group.epoch, group.first, group.flags) != (epoch, want, 1):
                    raise Refused("reader: the checkpoint is lost")
                self.items(group.payload)
                block, want = group.end, group.last + 1

    def items(self, items):
        at = 0
        while at < len(items):
            if items[at] == 1:
                count, base = unpack_from("<HQ", items, at + 1)
                end, at, key = at + 3 + count, at + 11, b""
                while at < end:
                    sizes, suffix = items[at + 2], items[at + 1]
                    form = Struct(f"<BBB5s{sizes % 4 + 1}s{sizes // 4 % 8 + 1}s{sizes // 32 % 2 * 8}s{suffix}s")
                    shared, _, _, *numbers, rest = form.unpack_from(items, at)
                    at, key = at + form.size, key[:shared] + rest
                    place, size, birth, upload = (int.from_bytes(number, "little") for number in numbers)
                    self.index[key] = *divmod(place * 8, 1 << 24), size, base + birth, upload or None, sizes & 64 != 0
            elif items[at] == 2:
                self.uses.append(unpack_from("<II16s", items, at + 1))
                at += 25
            else:
                self.absent |= items[at] == 3 and items[at + 1] == 1
                at += 2 if items[at] == 3 else 2 + items[at + 1]

    def scan(self):
        """Finds the groups of every use of the log, by block, and the evidence (section 7)."""
        groups = [{} for _ in self.sb.log]
        for segment in range(self.sb.segments):
            listed = {use[3]: at for at, use in enumerate(self.sb.log) if use[0] == segment}
            for block in range(self.sb.blocks if listed else 1):
                group = Group(self, segment, block)
                if group.tag and (block == 0 or group.epoch in listed):
                    self.evidence = max(self.evidence, group.durable)
                if group.tag and group.epoch in listed:
                    groups[listed[group.epoch]][block] = group
        return groups

    def walk(self):
        """Replays the log (section 7); each branch is a row of the table."""
        log, groups = [*self.sb.log, (0, 0, 0, b"")], [*self.scan(), {}]
        use, block, want, tag = 0, log[0][1], self.sb.base + 1, self.sb.base_tag
        while True:
            def fits(use, block):
                group = groups[use].get(block)
                return group and group.whole and group.first == want and tag in (None, group.previous)

            end, last = log[use][2], use == len(log) - 1
            behind = next((
                (at, group) for at in range(use, use + 1 if end else len(log)) for group in groups[at].values()
                if group.whole and group.first > want and group.block >= (block if at == use else log[at][1])
                and (not log[at][2] or group.last <= log[at][2])), None)
            if end and want > end:
                use, block, tag = use + 1, log[use + 1][1], None
            elif fits(use, block):
                group = groups[use][block]
                self.replay(group)
                block, want, tag = group.end, group.last + 1, group.tag
            elif not end and not last and fits(use + 1, log[use + 1][1]):
                use, block = use + 1, log[use + 1][1]
            elif behind and max(self.evidence, end) >= behind[1].first - 1:
                self.lose()
                use, block, want, tag = behind[0], behind[1].block, behind[1].first, None
            elif end and not behind:
                self.lose()
                use, block, want, tag = use + 1, log[use + 1][1], end + 1, None
            else:
                return self.lose() if self.evidence >= want else None

    def lose(self):
        """Every key known so far may be out of date, and every other may be missing."""
        self.lost, self.absent = True, True
        self.index = {key: (*entry[:5], True) for key, entry in self.index.items()}

    def replay(self, group):
        """Applies the records of a group (section 5)."""
        at, base = 0, group.block * self.sb.block + 128
        for _ in range(group.records):
            kind, flags, key, value, birth, size = record(group.payload[at:], group.epoch, group.segment, base + at)
            upload, length = unpack_from("<QQ", value) if flags & 2 else (None, len(value))
            if kind == 2:
                self.index.pop(key, None)
            elif kind in (1, 4, 7) or key in self.index and self.index[key][3] == birth:
                self.index[key] = group.segment, base + at, length, birth, upload, flags & 1 == 1 and self.absent
            at += size

    def read(self, key):
        """Reads a record's value from either copy; `None` if it is lost or in doubt."""
        segment, offset, size, birth, upload, doubt = self.index.get(key, (0, 0, 0, 0, None, True))
        held = [use for use in self.uses if use[0] == segment and use[1] <= offset // self.sb.block]
        size = 56 if upload is not None else size
        for zone in self.zones if held and not doubt else ():
            at = zone + segment * self.sb.blocks * self.sb.block + offset
            epoch = max(held, key=lambda use: use[1])[2]
            found = record(self.image[at:at + 32 + len(key) + size], epoch, segment, offset)
            if found and (found[2], found[4]) == (key, birth):
                return found[3]
        return None

    def values(self, key):
        """Yields what the digest covers of a key's value, then the lines of its dump: place, if in parts, and bytes."""
        value, (_, _, total, _, upload, _) = self.read(key), self.index[key]
        lost, lines, parts = [pack("<BQ", 0, 0)], [(None, None)], []
        if value is not None and upload is None:
            return [pack("<BQ", 1, len(value)) + value, (None, value)]
        chunks, large = pack(">BQ", 0, upload or 0), total > min(65536, self.sb.blocks // 2 * self.sb.block - 416)
        if value is None or sum(self.index[key][2] for key in self.index if key.startswith(chunks)) != total:
            return lost + lines
        identity, bytes_of, step, _, digest = unpack("<QQII32s", value)
        for at in range(0, total, step) if (identity, bytes_of) == (upload, total) else ():
            part = self.read(chunks + pack(">I", at // step))
            if part is None or len(part) != min(step, total - at):
                return lost + parts * large + lines
            parts.append((at, part))
        if not parts or blake3(value := b"".join(part for _, part in parts), PLAIN, 0) != digest:
            return lost + parts[:-1] * large + lines
        return [pack("<BQ", 2, total) + digest, *parts] if large else [pack("<BQ", 1, total) + value, (None, value)]

    def version(self, birth):
        """Yields what clients see of a birth (section 6)."""
        left, right = birth >> 32, birth & MASK
        for turn in range(4):
            left, right = right, left ^ siphash(unpack("<QQ", self.version_key[:16]), turn << 32 | right) & MASK
        return left << 32 | right

def record(data, epoch, segment, offset):
    """Reads the record at the start of `data`: kind, flags, key, value, birth, bytes; `None` if its CRC is wrong."""
    crc, kind, flags, key, size, _, _, birth = unpack_from("<IBBHIIQQ", data)
    end = 32 + key + size
    good = end <= len(data) and zlib.crc32(epoch + pack("<II", segment, offset) + data[4:end]) == crc
    return (kind, flags, data[32:32 + key], data[32 + key:end], birth, -(-end // 8) * 8) if good else None

def show(line):
    sys.stdout.buffer.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")

def dump(image):
    """Writes a line for each key, and the digest (section 11)."""
    volume, digested = Volume(image), b""
    lost = volume.lost or volume.absent
    for key in sorted(key for key in volume.index if key[0] != 0):
        version, (covered, *lines) = volume.version(volume.index[key][3]), volume.values(key)
        digested += pack("<Q", len(key)) + key + pack("<Q", version) + covered
        for at, value in lines:
            lost |= value is None
            line = {} if at is None else {"at": at, "bytes": volume.index[key][2]}
            text = key.decode(errors="replace")
            line.update({"key": text} if text.encode() == key else {"keyBytes": base64.b64encode(key).decode()})
            line["value"] = None if value is None else base64.b64encode(value).decode()
            show({**line, "version": f"{version:016x}"})
    show({"digest": derived("StateFS v1 state digest", digested).hex()})
    return 6 if lost else 0

if __name__ == "__main__":
    sys.exit(dump(open(sys.argv[1], "rb").read()))
