/*
 * A shim (LD_PRELOAD) that lets User-mode Linux 6.1 run on processors whose
 * extended state is larger than its buffer of 2696 bytes: those with AMX tiles (11008
 * bytes). The host's kernel gives a part of that state to a short buffer, but
 * takes it back only whole (PTRACE_SETREGSET answers EFAULT), and the guest's init
 * dies with "ptrace set fp regs failed".
 *
 * A short PTRACE_SETREGSET is completed here from the tracee's present state:
 * what the guest keeps (x87, SSE, AVX, AVX-512, PKRU) lies in front in the
 * XSAVE layout, the tiles behind it are used by nobody in the guest.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

long ptrace(enum __ptrace_request request, ...)
{
	va_list ap;
	va_start(ap, request);
	long pid = va_arg(ap, long);
	void *addr = va_arg(ap, void *);
	void *data = va_arg(ap, void *);
	va_end(ap);

	struct iovec *given = data, whole;
	static char state[65536] __attribute__((aligned(64)));
	if (request == PTRACE_SETREGSET && (long)addr == NT_X86_XSTATE) {
		whole.iov_base = state;
		whole.iov_len = sizeof(state);
		if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, addr, &whole) == 0 &&
		    given->iov_len < whole.iov_len) {
			memcpy(state, given->iov_base, given->iov_len);
			data = &whole;
		}
	}
	/* PEEK requests return their word through memory in the system call. */
	long word, result;
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		result = syscall(SYS_ptrace, request, pid, addr, &word);
		return result < 0 ? result : word;
	}
	return syscall(SYS_ptrace, request, pid, addr, data);
}
