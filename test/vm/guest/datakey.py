# datakey.py IMAGE KMS_SOCKET: prints the data key of a disk image, 64 raw bytes, as the
# disk service itself gets it: the token's wrapped key, unwrapped by the KMS.
import base64, http.client, json, socket, subprocess, sys

image, path = sys.argv[1:]
token = json.loads(subprocess.check_output(["cryptsetup", "token", "export", "--token-id", "0", image]))
request = {
    "key_id": token["key_id"],
    "cipher_text": base64.b64decode(token["wrapped_dk"]).hex(),
    "datakey_cipher_length": "64",
    "additional_authenticated_data": "sealdisk:v1:%s:%s" % (token["project"], token["disk_id"]),
}
c = http.client.HTTPConnection("kms")
c.sock = socket.socket(socket.AF_UNIX)
c.sock.connect(path)
c.request("POST", "/v1.0/%s/kms/decrypt-datakey" % token["project"], json.dumps(request),
          {"Content-Type": "application/json", "X-Sealdisk-Principal": "evs"})
reply = c.getresponse()
body = reply.read()
assert reply.status == 200, body
sys.stdout.buffer.write(bytes.fromhex(json.loads(body)["data_key"]))
