"""Checks digest and MAC of a sealdisk LUKS2 header without any code of sealdisk.

Written from the package's documentation, with Python's standard library only.
Usage: independent.py FILE DK_IN_HEX. Prints digest and MAC, in hexadecimal, as computed from the
other fields of the header; exits with 1 if the header holds others.
"""
import base64
import hashlib
import hmac
import json
import struct
import sys


def text(s):
    b = s if isinstance(s, bytes) else s.encode()
    return struct.pack(">I", len(b)) + b


def number(n):
    return struct.pack(">Q", int(n))


def read(path, offset, magic):
    with open(path, "rb") as f:
        f.seek(offset)
        raw = f.read(16384)
    assert raw[:8] == magic + b"\xba\xbe\x00\x02", "magic and version"
    size, seqid = struct.unpack_from(">QQ", raw, 8)
    assert size == 16384 and struct.unpack_from(">Q", raw, 256)[0] == offset
    zeroed = raw[:448] + bytes(64) + raw[512:]
    assert raw[448:480] == hashlib.sha256(zeroed).digest(), "checksum"
    return raw[168:208].rstrip(b"\0").decode(), json.loads(raw[4096:].rstrip(b"\0"))


def main(path, dk):
    uuid, meta = read(path, 0, b"LUKS")
    assert (uuid, meta) == read(path, 16384, b"SKUL"), "copies differ"
    token, segment, digest = meta["tokens"]["0"], meta["segments"]["0"], meta["digests"]["0"]
    salt, value = base64.b64decode(digest["salt"]), base64.b64decode(digest["digest"])
    computed = hashlib.pbkdf2_hmac(digest["hash"], dk, salt, digest["iterations"])

    required = meta["config"].get("requirements", {}).get("mandatory", [])
    size = 0 if segment["size"] == "dynamic" else segment["size"]
    fields = [text("sealdisk/header/v1"), text(uuid), text(segment["encryption"]),
              number(segment["sector_size"]), number(segment["offset"]), number(size), number(len(required))]
    fields += [text(r) for r in required]
    fields += [text(token[k]) for k in ("type", "provider", "key_id", "key_version")]
    fields += [text(base64.b64decode(token["wrapped_dk"]))]
    fields += [text(token[k]) for k in ("aad_scheme", "disk_id", "project")]
    fields += [number(token["generation"]), text(digest["type"]), text(digest["hash"]),
               number(digest["iterations"]), text(salt), text(value)]

    # HKDF-SHA256 (RFC 5869), no salt, one block of output.
    extracted = hmac.new(bytes(32), dk, hashlib.sha256).digest()
    key = hmac.new(extracted, b"sealdisk/header/v1\x01", hashlib.sha256).digest()
    mac = hmac.new(key, b"".join(fields), hashlib.sha256).digest()
    print(computed.hex(), mac.hex())
    return computed == value and mac == base64.b64decode(token["mac"])


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1], bytes.fromhex(sys.argv[2])) else 1)
