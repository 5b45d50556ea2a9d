# An independent reader of sealdisk's format: AES-XTS by OpenSSL (python3-cryptography), the
# tweak of a sector is the number of its first 512-byte unit, a unit of zeros is a hole.
#   decrypt.py IMAGE KEYFILE SECTOR_SIZE OFFSET OUT
import sys
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

image, keyfile, sector, offset, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
key = open(keyfile, "rb").read()
assert len(key) == 64
unit = bytes(512)
with open(image, "rb") as src, open(out, "wb") as dst:
    src.seek(offset)
    n = 0
    while data := src.read(sector):
        assert len(data) == sector, "the file ends inside a sector"
        if data.strip(b"\0"):
            tweak = (n * (sector // 512)).to_bytes(16, "little")
            d = Cipher(algorithms.AES(key), modes.XTS(tweak)).decryptor()
            plain = bytearray(d.update(data) + d.finalize())
            for i in range(0, sector, 512):
                if data[i:i + 512] == unit:
                    plain[i:i + 512] = unit
            dst.write(plain)
        else:
            dst.seek(sector, 1)
        n += 1
    dst.truncate(n * sector)
