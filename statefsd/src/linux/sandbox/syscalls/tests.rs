//! What the filter lets through, call by call: the program that the kernel is given is run here, so
//! that nothing of it is taken on trust. That the kernel kills by it, the probes beside show.

use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use libc::{MAP_SHARED, O_RDONLY, O_RDWR, O_WRONLY, PROT_READ, PROT_WRITE};
use seccompiler::sock_filter;

use super::*;

/// More numbers of calls than there are.
const CALLS: i64 = 1024;

/// What the kernel marks a call of this machine with: `AUDIT_ARCH_*` of linux/audit.h.
const ARCH: u32 = 0xc000_0000 | if cfg!(target_arch = "x86_64") { 62 } else { 183 };

/// Calls that are allowed without a look at their arguments, or in part. One more is a decision: whoever
/// raises it has asked what a daemon that was taken over can do with it.
const ALLOWED: (usize, usize) = if cfg!(target_arch = "x86_64") { (57, 7) } else { (48, 6) };

/// What a daemon that was taken over would want: a program, a process, a socket or another descriptor,
/// a file to write, code, somebody else's memory, another view of the system, or the system itself.
const DANGEROUS: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_pidfd_send_signal,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmsg,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_ioctl,
    libc::SYS_io_uring_setup,
    libc::SYS_io_submit,
    libc::SYS_openat2,
    libc::SYS_open_by_handle_at,
    libc::SYS_memfd_create,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_splice,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_pkey_mprotect,
    libc::SYS_remap_file_pages,
    libc::SYS_userfaultfd,
    libc::SYS_shmget,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_prlimit64,
    libc::SYS_seccomp,
    libc::SYS_personality,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
];

/// The filter, and the words of a call that it looks at.
struct Filter(Vec<sock_filter>);

impl Filter {
    fn new(written: bool) -> Self {
        Self(program(written).unwrap())
    }

    /// Runs the program as the kernel does, on what seccomp(2) calls `seccomp_data`.
    fn allows_on(&self, arch: u32, call: i64, arguments: [u64; 6]) -> bool {
        let mut data = vec![u32::try_from(call).unwrap(), arch, 0, 0];
        let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap();
        let halves = |word: u64| [half(word), half(word >> 32)];
        data.extend(arguments.into_iter().flat_map(halves));
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = &self.0[at];
            let branch = |yes: bool| usize::from(if yes { *jt } else { *jf });
            at += 1;
            match code {
                0x20 => accumulator = data[*k as usize / 4],
                0x54 => accumulator &= k,
                0x05 => at += *k as usize,
                0x15 => at += branch(accumulator == *k),
                0x25 => at += branch(accumulator > *k),
                0x35 => at += branch(accumulator >= *k),
                0x06 if *k == libc::SECCOMP_RET_ALLOW => return true,
                0x06 => {
                    assert_eq!(*k, libc::SECCOMP_RET_KILL_PROCESS, "what is not allowed kills");
                    return false;
                }
                other => panic!("an instruction that no filter of ours has: {other:#x}"),
            }
        }
    }

    fn allows(&self, call: i64, arguments: [u64; 6]) -> bool {
        self.allows_on(ARCH, call, arguments)
    }

    /// Whether a call is allowed with this word in the one place, whatever the others are.
    fn allows_with(&self, call: i64, place: usize, word: i32) -> bool {
        let word = u64::from(word.cast_unsigned());
        let told = [0, u64::MAX].map(|others| {
            let mut arguments = [others; 6];
            arguments[place] = word;
            // The kernel takes the lower half of it.
            let lower = self.allows(call, arguments);
            arguments[place] |= u64::MAX << 32;
            assert_eq!(self.allows(call, arguments), lower, "{call}");
            lower
        });
        assert_eq!(told[0], told[1], "{call}: it looks at one argument");
        told[0]
    }
}

#[test]
fn the_list_is_as_long_as_it_was_weighed() {
    let (always, conditional) = (ALWAYS.iter().collect::<BTreeSet<_>>(), conditional(false));
    assert_eq!((always.len(), conditional.len()), ALLOWED);
    for written in [false, true] {
        let filter = Filter::new(written);
        for call in 0..CALLS {
            let all = always.contains(&call);
            let part = conditional.iter().any(|(known, _, _)| *known == call);
            assert!(!(all && part), "{call}: the condition would count for nothing");
            for word in [0, 1, 0x0fff_ffff_ffff_ffff, u64::MAX] {
                let allowed = filter.allows(call, [word; 6]);
                assert!(allowed == all || part, "{call} with {word:#x}");
            }
        }
    }
}

#[test]
fn nothing_dangerous_is_allowed() {
    for written in [false, true] {
        let filter = Filter::new(written);
        for call in DANGEROUS {
            for place in 0..6 {
                for bit in 0..32 {
                    assert!(!filter.allows_with(*call, place, 1 << bit), "{call}");
                }
                assert!(!filter.allows_with(*call, place, 0), "{call}");
            }
        }
    }
}

#[test]
fn calls_of_another_machine_are_not_those_of_this_one() {
    let filter = Filter::new(true);
    for call in 0..CALLS {
        // i386, ARM, and nothing; of x86-64 with short pointers, which marks its numbers.
        for arch in [0x4000_0003, 0x4000_0028, 0] {
            assert!(!filter.allows_on(arch, call, [0; 6]), "{call} of {arch:#x}");
        }
        assert!(!filter.allows(call | 0x4000_0000, [0; 6]), "{call}");
    }
}

#[test]
fn what_is_allowed_in_part_writes_no_file_and_runs_no_code() {
    let filter = Filter::new(false);
    let mut opens = vec![(libc::SYS_openat, 2)];
    #[cfg(target_arch = "x86_64")]
    opens.push((libc::SYS_open, 1));
    for (call, place) in opens {
        for harmless in [O_RDONLY, O_RDONLY | libc::O_CLOEXEC] {
            assert!(filter.allows_with(call, place, harmless), "{call}");
        }
        for flag in [O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE, O_ACCMODE] {
            assert!(!filter.allows_with(call, place, flag | libc::O_CLOEXEC), "{call}");
        }
    }
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        assert!(filter.allows_with(call, 2, PROT_READ | PROT_WRITE));
        for other in [0, PROT_READ, PROT_WRITE, MAP_SHARED] {
            assert!(!filter.allows_with(call, 2, PROT_EXEC | other), "{call}");
        }
    }
    let only = |call, place, allowed: &[i32]| {
        for word in (0..4096).chain([i32::MAX, -1, libc::PR_SET_PTRACER]) {
            let told = filter.allows_with(call, place, word);
            assert_eq!(told, allowed.contains(&word), "{call} with {word:#x}");
        }
    };
    only(libc::SYS_fcntl, 1, &[F_GETFD, F_GETFL, F_SETFL]);
    only(libc::SYS_prctl, 0, &[PR_SET_NAME]);
    only(libc::SYS_io_uring_register, 1, &[IORING_UNREGISTER_FILES]);
}
