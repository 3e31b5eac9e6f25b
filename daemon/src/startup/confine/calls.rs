//! The system calls that the filter allows, by purpose.

use libc::c_long;

/// Calls that every machine has.
pub(super) const ALLOWED: &[c_long] = &[
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_ioctl,
    libc::SYS_sethostname,
    libc::SYS_uname,
    // Descriptors and files. Landlock restricts which files.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_pipe2,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fchdir,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_ftruncate,
    libc::SYS_memfd_create,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_umask,
    // Waiting and time.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // Threads and signals.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_prctl,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Identity, and whether processes are alive.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    // The machine and its limits.
    libc::SYS_getrandom,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_getcpu,
];

/// Calls of the monitor in addition to those of the processes that it starts: a filter applies to these as well, so that it
/// allows them to start, and to restrict themselves further.
pub(super) const OF_MONITOR: &[c_long] = &[
    // Processes of other roles. Landlock and the capabilities do not restrict the file: it is that of this program.
    libc::SYS_chdir,
    libc::SYS_execve,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_kill,
    // Signals, as a descriptor.
    libc::SYS_signalfd4,
    libc::SYS_rt_sigpending,
    // A new program, before its first instruction of its own.
    libc::SYS_set_tid_address,
    // Its confinement.
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// Calls that change the ids of a thread.
pub(super) const OF_IDENTITY: &[c_long] =
    &[libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setgroups];

/// Calls of older machines, for which newer ones have the more general above.
#[cfg(target_arch = "x86_64")]
pub(super) const ALLOWED_OF_OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_chmod,
    libc::SYS_lchown,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_time,
    libc::SYS_getrlimit,
    libc::SYS_arch_prctl,
];

/// Calls of older machines, for which newer ones have the more general above.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const ALLOWED_OF_OLD: &[c_long] = &[];

/// Calls of every process but those that serve clients: memory, threads, and its ids.
pub(super) const COMMON: &[c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // Threads and signals.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // What is in force, once.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
    libc::SYS_prctl,
    libc::SYS_getrandom,
];

/// Calls of the opener: what workers ask for, its channels, and its threads.
pub(super) const OF_OPENER: &[c_long] = &[
    libc::SYS_socket,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_ioctl,
    libc::SYS_sethostname,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    // The log.
    libc::SYS_sendto,
    libc::SYS_write,
    libc::SYS_writev,
    // The policy, for which the kernel's support of pidfds is tried; control groups.
    libc::SYS_socketpair,
    libc::SYS_openat,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_close,
    // Waiting and time.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_delete,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
];

/// Calls of older machines, for which newer ones have the more general above.
#[cfg(target_arch = "x86_64")]
pub(super) const OF_OPENER_OF_OLD: &[c_long] =
    &[libc::SYS_open, libc::SYS_stat, libc::SYS_poll, libc::SYS_epoll_wait];

/// Calls of older machines, for which newer ones have the more general above.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OF_OPENER_OF_OLD: &[c_long] = &[];

/// Calls of a process that acts as a caller: those on `AF_UNIX` sockets and on their files, its channels, and threads.
pub(super) const OF_CALLER: &[c_long] = &[
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    // The file of a bound socket (sock_diag(7)), and the log.
    libc::SYS_socket,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_write,
    libc::SYS_writev,
    // Files: what paths lead to, mounts, and the memory of large messages.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_fchdir,
    libc::SYS_memfd_create,
    libc::SYS_fcntl,
    libc::SYS_close,
    // Waiting and time.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
];

/// Calls of older machines, for which newer ones have the more general above.
#[cfg(target_arch = "x86_64")]
pub(super) const OF_CALLER_OF_OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
];

/// Calls of older machines, for which newer ones have the more general above.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OF_CALLER_OF_OLD: &[c_long] = &[];

/// Calls of a process that reads captures: its sockets, which others made, the streams, its channels, and threads.
pub(super) const OF_READER: &[c_long] = &[
    libc::SYS_socketpair,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    // What the kernel notes in the journals of captures that outlive the process, which are files in memory.
    libc::SYS_sendmmsg,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_pread64,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    // The names of interfaces, and blocking streams.
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_eventfd2,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    // What is in force.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    // The log.
    libc::SYS_writev,
    libc::SYS_prctl,
    // Waiting and time.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
];

/// Calls of older machines, for which newer ones have the more general above.
#[cfg(target_arch = "x86_64")]
pub(super) const OF_READER_OF_OLD: &[c_long] =
    &[libc::SYS_open, libc::SYS_poll, libc::SYS_epoll_wait];

/// Calls of older machines, for which newer ones have the more general above.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OF_READER_OF_OLD: &[c_long] = &[];

/// Calls of the gateway: its connections, which it accepts, pairs for workers, its channel, and threads. It makes no
/// socket that reaches anything.
pub(super) const OF_GATEWAY: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_socketpair,
    libc::SYS_shutdown,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_eventfd2,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_readv,
    libc::SYS_close,
    // Credentials, which come in memory, and what is in force.
    libc::SYS_pread64,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    // Waiting and time.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
];
