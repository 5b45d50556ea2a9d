package conformance

import (
	"testing"

	"sealdisk/test/testbed"
)

// Bad requests get the protocol's errors as replies; the connection lives on.
func TestBadRequestsGetErrorReplies(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	for _, c := range []struct{ name, script string }{
		{"past the end", `
size = h.get_size()
failing(errno.EINVAL, h.pread, 512, size)
failing(errno.EINVAL, h.pread, 512, size - 511)
failing(errno.ENOSPC, h.pwrite, b'x' * 512, size)
failing(errno.ENOSPC, h.pwrite, b'x' * 512, size - 511)
failing(errno.ENOSPC, h.zero, 4096, size - 1)
failing(errno.EINVAL, h.trim, 4096, size - 1)
failing(errno.EINVAL, h.cache, 4096, size - 1)
failing(errno.EINVAL, h.block_status, 4096, size, lambda *a: 0)
failing(errno.EINVAL, h.pread, 512, (1 << 63) - 512)
failing(errno.ENOSPC, h.pwrite, b'x' * 512, (1 << 63) - 512)
`},
		{"length 0", `
failing(errno.EINVAL, h.pread, 0, 0)
failing(errno.EINVAL, h.pwrite, b'', 0)
failing(errno.EINVAL, h.trim, 0, 0)
failing(errno.EINVAL, h.zero, 0, 0)
failing(errno.EINVAL, h.cache, 0, 0)
failing(errno.EINVAL, h.block_status, 0, 0, lambda *a: 0)
`},
		{"flags on the wrong command", `
failing(errno.EINVAL, h.pread, 512, 0, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
failing(errno.EINVAL, h.pwrite, b'x' * 512, 0, nbd.CMD_FLAG_NO_HOLE)
failing(errno.EINVAL, h.pwrite, b'x' * 512, 0, nbd.CMD_FLAG_DF)
failing(errno.EINVAL, h.flush, nbd.CMD_FLAG_DF)
failing(errno.EINVAL, h.trim, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
failing(errno.EINVAL, h.pwrite, b'x' * 512, 0, 1 << 15)
assert h.pread(512, 0) == bytes(512)
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			nbdsh(t, uri, "lax()"+c.script+"\nassert len(h.pread(512, 0)) == 512\nh.shutdown()\n")
		})
	}
}

// More than 32 MiB: EINVAL with the payload drained, while exactly 32 MiB work, and
// trims and zeroes may be longer.
func TestPayloadLimit(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "80M")
	nbdsh(t, uri, `
lax()
whole = bytes(range(256)) * (32 * 4096)
h.pwrite(whole, 4096)
assert h.pread(32 << 20, 4096) == whole
failing(errno.EINVAL, h.pwrite, whole + b'more', 0)
failing(errno.EINVAL, h.pread, (32 << 20) + 1, 0)
assert h.pread(32 << 20, 4096) == whole
h.zero(80 << 20, 0)
assert h.pread(32 << 20, 0) == bytes(32 << 20)
h.trim(80 << 20, 0)
h.shutdown()
`)
}

// Unaligned I/O, down to single bytes, on either sector size.
func TestUnalignedIO(t *testing.T) {
	d := testbed.Start(t)
	for _, size := range []string{"512", "4096"} {
		t.Run(size, func(t *testing.T) {
			d := d.In(t)
			uri := d.Disk("vol"+size, "16M", "--sector-size", size)
			nbdsh(t, uri, `
import random
r = random.Random(1)
model = bytearray(1 << 20)
for i in range(400):
    off = r.randrange(len(model)); n = min(r.choice([1, 3, 511, 513, 4095, 4097, 70000]), len(model) - off)
    k = r.random()
    if k < 0.6:
        data = r.randbytes(n)
        h.pwrite(data, off, nbd.CMD_FLAG_FUA if k < 0.05 else 0)
    else:
        data = bytes(n)
        h.zero(n, off, nbd.CMD_FLAG_NO_HOLE if k < 0.8 else 0)
    model[off:off + n] = data
    off = r.randrange(len(model)); n = min(r.randrange(1, 9000), len(model) - off)
    assert h.pread(n, off) == model[off:off + n], "step %d" % i
assert h.pread(len(model), 0) == model
h.flush()
h.shutdown()
`)
		})
	}
}

// Structured and simple replies, with and without the negotiated contexts.
func TestReplyKinds(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "16M")
	for _, c := range []struct{ name, script string }{
		{"simple replies", `#by hand
h.set_request_structured_replies(False)
h.connect_uri(uri)
assert not h.get_structured_replies_negotiated()
h.pwrite(b'a' * 1000, 77)
assert h.pread(1000, 77) == b'a' * 1000
h.set_strict_mode(0)
failing(errno.EINVAL, h.pread, 512, h.get_size())
failing(errno.EINVAL, h.block_status, 512, 0, lambda *a: 0)
failing(errno.EINVAL, h.pread, 512, 0, nbd.CMD_FLAG_DF)
h.shutdown()
`},
		{"structured replies, DF", `
assert h.get_structured_replies_negotiated()
chunks = []
def chunk(buf, off, status, err):
    chunks.append((off, len(buf), status))
h.pwrite(b'b' * 65536, 1 << 20)
buf = h.pread_structured(1 << 20, (1 << 20) - 4096, chunk)
assert buf == bytes(4096) + b'b' * 65536 + bytes((1 << 20) - 4096 - 65536)
assert sum(n for _, n, _ in chunks) == 1 << 20, chunks
chunks.clear()
h.pread_structured(1 << 20, (1 << 20) - 4096, chunk, nbd.CMD_FLAG_DF)
assert len(chunks) == 1 and chunks[0][1] == 1 << 20, chunks
h.shutdown()
`},
		{"no context, no block status", `#by hand
h.connect_uri(uri)
h.set_strict_mode(0)
failing(errno.EINVAL, h.block_status, 512, 0, lambda *a: 0)
h.shutdown()
`},
		{"one extent no longer than asked", `#by hand
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(uri)
got = []
h.block_status(8192, 4096, lambda ctx, off, e, err: got.extend(e), nbd.CMD_FLAG_REQ_ONE)
assert len(got) == 2 and got[0] <= 8192, got
h.shutdown()
`},
		{"options by hand", `#by hand
h.set_opt_mode(True)
h.connect_uri(uri)
names = []
h.set_export_name('nosuch')
failing(errno.ENOENT, h.opt_info)
assert h.opt_list(lambda n, d: names.append(n)) == len(names)
h.set_export_name('vol')
h.opt_info()
assert h.get_size() == 16 << 20
h.add_meta_context('x-unknown:context')
ctx = []
h.opt_list_meta_context(lambda n: ctx.append(n))
assert ctx == [], ctx
h.clear_meta_contexts()
h.add_meta_context('base:')
h.opt_list_meta_context(lambda n: ctx.append(n))
assert ctx == ['base:allocation'], ctx
h.opt_go()
assert h.pread(512, 0) is not None
h.shutdown()
`},
	} {
		t.Run(c.name, func(t *testing.T) { nbdsh(t, uri, c.script) })
	}
}
