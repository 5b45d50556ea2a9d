# AES-XTS by OpenSSL, through python3-cryptography: the tests' second oracle.
# Reads lines "encrypt|decrypt KEY TWEAK DATA" (hex; TWEAK has 16 bytes) and
# answers each with a line of hex.
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

for line in sys.stdin:
    way, key, tweak, data = line.split()
    cipher = Cipher(algorithms.AES(bytes.fromhex(key)), modes.XTS(bytes.fromhex(tweak)))
    op = cipher.encryptor() if way == "encrypt" else cipher.decryptor()
    print((op.update(bytes.fromhex(data)) + op.finalize()).hex())
