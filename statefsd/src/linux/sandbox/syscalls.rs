//! System calls out of reach: seccomp, for all threads at once.
//!
//! What is not in the list ends the process. The list is what the suite of the whole system was seen
//! to use, and what another C library, an older kernel or a panic uses in its place. Nothing in it
//! opens a file for writing, starts a program, makes a socket, hands on a descriptor or runs new code.

use std::collections::BTreeMap;
use std::string::{String, ToString as _};
use std::vec;
use std::vec::Vec;

use libc::{
    F_GETFD, F_GETFL, F_SETFL, O_ACCMODE, O_CREAT, O_TMPFILE, O_TRUNC, PR_SET_NAME, PROT_EXEC,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter_all_threads,
};

/// Takes every system call away from all threads that serving does not take: it then kills. Files
/// besides the image, whose descriptor is there already, stay writable only if one is `written`.
///
/// # Errors
/// The kernel has no seccomp or the machine is of an unknown kind; in words for the log.
pub(crate) fn seal(written: bool) -> Result<(), String> {
    let program = program(written)?;
    apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

fn program(written: bool) -> Result<BpfProgram, String> {
    let told = |error: seccompiler::BackendError| error.to_string();
    let arch = std::env::consts::ARCH.try_into().map_err(told)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    for (call, argument, conditions) in conditional(written) {
        for (mask, value) in conditions {
            let op = Op::MaskedEq(mask);
            let condition = SeccompCondition::new(argument, Len::Dword, op, value).map_err(told)?;
            let rule = SeccompRule::new(vec![condition]).map_err(told)?;
            rules.entry(call).or_default().push(rule);
        }
    }
    let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, kill, allow, arch).map_err(told)?;
    filter.try_into().map_err(told)
}

/// A call, an argument by its index, and the masks and values of which one has to fit.
type Conditional = (i64, u8, Vec<(u64, u64)>);

/// Calls that are allowed in part.
fn conditional(written: bool) -> Vec<Conditional> {
    let bits = |bits: i32| u64::from(bits.cast_unsigned());
    let all = u64::from(u32::MAX);
    let no_code = vec![(bits(PROT_EXEC), 0)];
    // Whether what it names may be read, Landlock says.
    let read = (bits(O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE), 0);
    let opened = if written { vec![(0, 0)] } else { vec![read] };
    let of = |values: &[i32]| values.iter().map(|value| (all, bits(*value))).collect();
    vec![
        (libc::SYS_mmap, 2, no_code.clone()),
        (libc::SYS_mprotect, 2, no_code),
        (libc::SYS_openat, 2, opened.clone()),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, 1, opened),
        (libc::SYS_fcntl, 1, of(&[F_GETFD, F_GETFL, F_SETFL])),
        (libc::SYS_prctl, 0, of(&[PR_SET_NAME])),
        // At the end the ring lets go of the image.
        (libc::SYS_io_uring_register, 1, of(&[IORING_UNREGISTER_FILES])),
    ]
}

/// Of io_uring_register(2); libc has no name for it.
const IORING_UNREGISTER_FILES: i32 = 3;

/// Calls that are allowed whatever their arguments.
const ALWAYS: &[i64] = &[
    // Bytes of the device, of connections, of the log and of wake-ups.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_fdatasync,
    libc::SYS_fadvise64,
    // The device's ring, which can do nothing but this to the one file.
    libc::SYS_io_uring_enter,
    libc::SYS_lseek,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    // Connections, and who they are.
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_close,
    // Waiting.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Time and entropy, where the kernel does not give them without a call.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // What a file is, and the end of a socket's file.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    libc::SYS_renameat,
    libc::SYS_geteuid,
    // Where a panic's backtrace is asked for, what its files are called.
    libc::SYS_getcwd,
    libc::SYS_readlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // The first steps of a thread that was started just before, and the end of one.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    // Signals, and a panic's end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
];

#[cfg(test)]
mod tests;
