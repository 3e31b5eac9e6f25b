//! The answer to one call: natively first, and by the broker if the kernel refuses it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use sockbroker_client::option::RawValue;
use sockbroker_proto::api::delegation::{PROGRAM_NAME_BYTES, Program};
use sockbroker_sys::{option, socket};

use crate::decision::{
    ADDRESS_BYTES, Call, MULTIPLEXED_BYTES, NewSocket, OPTION_BYTES, OptionKind, PrivilegedOption,
    decode, decode_multiplexed, is_refusal, privileged_address, unserved,
};
use crate::delegation::{Delegation, Failure};
use crate::in_progress::{InProgress, Key};
use crate::kernel::notify::Listener;
use crate::refusal::{Lines, denied};
use crate::remote::{self, Network};

/// How often the arguments of a call that signals interrupt are read again.
const READS_MAX: u32 = 1000;

/// `SO_LOCK_FILTER` (`socket(7)`).
const SO_LOCK_FILTER: i32 = 44;

/// What the supervisor knows and has.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) listener: Listener,
    pub(crate) calls: InProgress,
    pub(crate) delegation: Delegation,
    pub(crate) lines: Lines,
    pub(crate) network: Network,
    pub(crate) first_unprivileged: u16,
    /// Whether the sockets of the program are in another network namespace than the program: the kernel makes none.
    pub(crate) in_named_namespace: bool,
    /// How long an answer waits for the report of an interrupted call: zero if no signal interrupts one.
    pub(crate) rejoin_time: Duration,
}

/// The end of a call.
#[derive(Debug)]
enum Answer {
    /// The kernel makes it, with the rights of the program.
    Natively,
    /// It has been made.
    Done,
    /// It has failed.
    Errno(i32),
    /// It has made a socket.
    Socket { socket: OwnedFd, close_on_exec: bool },
}

/// Whether a call is decided at once. Returns false for a call that has to be made, which may wait.
pub(crate) fn answer_at_once(context: &Context, key: Key) -> bool {
    let natively = match decode(&key.1) {
        Call::Other => true,
        Call::Bind { address, length, .. } => {
            // A port that needs no privilege, or what is not an internet address.
            let bytes = read(key.0, address, length, ADDRESS_BYTES);
            bytes
                .is_ok_and(|bytes| privileged_address(&bytes, context.first_unprivileged).is_none())
        }
        Call::Socket(_) | Call::SetOption { .. } | Call::Multiplexed { .. } => false,
    };
    if natively {
        finish(context, key, &Answer::Natively);
    }
    natively
}

/// Makes a call, natively or by the broker, and answers it.
pub(crate) fn answer(context: &Context, key: Key) {
    let (tid, raw) = key;
    if !context.network.contains(tid) {
        // In its own network namespace the program means that one, and may have rights there.
        return finish(context, key, &Answer::Natively);
    }
    let call = match decode(&raw) {
        Call::Multiplexed { call, arguments } => {
            let words = gather(context, key, || {
                let mut words = [0; MULTIPLEXED_BYTES];
                remote::read_memory(tid, arguments, &mut words).map(|_length| words)
            });
            match words {
                None => return,
                Some(Ok(words)) => decode_multiplexed(call, &words),
                Some(Err(_)) => Call::Other,
            }
        }
        call => call,
    };
    let answer = match call {
        Call::Socket(new) => Some(make_socket(context, tid, new)),
        Call::Bind { fd, address, length } => bind(context, key, fd, (address, length)),
        Call::SetOption { fd, option, value, length } => {
            set_option(context, key, (fd, option), (value, length))
        }
        Call::Multiplexed { .. } | Call::Other => Some(Answer::Natively),
    };
    if let Some(answer) = answer {
        finish(context, key, &answer);
    }
}

/// Answers a call that the broker cannot make.
pub(crate) fn answer_unserved(context: &Context, key: Key) {
    let answer = match unserved(&key.1, context.in_named_namespace) {
        None => Answer::Natively,
        Some(errno) => Answer::Errno(errno),
    };
    finish(context, key, &answer);
}

fn finish(context: &Context, key: Key, answer: &Answer) {
    let Context { listener, calls, rejoin_time, .. } = context;
    // A call that nobody waits for has no answer: its thread has ended, or a signal handler has run instead.
    drop(calls.finish(key, *rejoin_time, |id| match answer {
        Answer::Natively => listener.make_natively(id),
        Answer::Done => listener.answer(id, None),
        Answer::Errno(errno) => listener.answer(id, Some(*errno)),
        Answer::Socket { socket, close_on_exec } => {
            match listener.give(id, socket.as_fd(), *close_on_exec, rejoin_time.is_zero()) {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                    // The program's own, such as EMFILE.
                    listener.answer(id, error.raw_os_error().or(Some(libc::EIO)))
                }
                result => result,
            }
        }
    }));
}

/// Reads what a call refers to, and checks that the call still waits: then it was read of the right program. Reads
/// again for a call that a signal has interrupted. `None` if nobody waits.
fn gather<T>(
    context: &Context,
    key: Key,
    read: impl Fn() -> io::Result<T>,
) -> Option<io::Result<T>> {
    let mut id = context.calls.newest(key)?;
    for _ in 0..READS_MAX {
        let value = read();
        if context.listener.is_valid(id) {
            return Some(value);
        }
        match context.calls.newer(key, id, context.rejoin_time) {
            Some(newer) => id = newer,
            None => break,
        }
    }
    context.calls.forget(key);
    None
}

/// Reads `length` bytes of a program. An error if they are more than `most`, or cannot be read.
fn read(tid: u32, address: u64, length: u32, most: usize) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).ok().filter(|length| *length <= most);
    let mut bytes = vec![0; length.ok_or(io::ErrorKind::InvalidInput)?];
    let read = remote::read_memory(tid, address, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn make_socket(context: &Context, tid: u32, new: NewSocket) -> Answer {
    if context.in_named_namespace {
        return make_in_namespace(context, tid, new);
    }
    match socket::create(new.family, new.kind, new.protocol) {
        Err(error) if error.raw_os_error().is_some_and(is_refusal) => {}
        // The kernel makes it, or reports what is wrong.
        Ok(_) | Err(_) => return Answer::Natively,
    }
    let program = program(tid);
    match context.delegation.socket(new, &program) {
        Ok(socket) => Answer::Socket { socket, close_on_exec: new.close_on_exec },
        // The kernel permits ICMP datagram sockets by group, also to the broker. Programs then try a raw socket.
        Err(Failure::Kernel { errno, .. }) if new.kind == libc::SOCK_DGRAM && is_refusal(errno) => {
            Answer::Natively
        }
        // The kernel refuses it, as without a broker.
        Err(failure) => report(context, &program, &new.describe(), failure)
            .map_or(Answer::Natively, Answer::Errno),
    }
}

/// Makes a socket in another network namespace. The kernel makes none instead: it would be in the wrong one.
fn make_in_namespace(context: &Context, tid: u32, new: NewSocket) -> Answer {
    if new.family == libc::AF_UNIX {
        // `socketcall` is reported for every family.
        return Answer::Natively;
    }
    let program = program(tid);
    match context.delegation.socket(new, &program) {
        Ok(socket) => Answer::Socket { socket, close_on_exec: new.close_on_exec },
        Err(failure) => {
            let errno = failure.errno();
            if let Failure::Kernel { message, .. } = &failure
                && message.contains("network namespace")
            {
                context.lines.note(message);
            }
            Answer::Errno(report(context, &program, &new.describe(), failure).unwrap_or(errno))
        }
    }
}

fn bind(context: &Context, key: Key, fd: i32, (pointer, length): (u64, u32)) -> Option<Answer> {
    let gathered = gather(context, key, || {
        let bytes = read(key.0, pointer, length, ADDRESS_BYTES)?;
        let Some(address) = privileged_address(&bytes, context.first_unprivileged) else {
            return Ok(None);
        };
        Ok(Some((address, remote::descriptor(key.0, fd)?)))
    })?;
    let Ok(Some((address, socket))) = gathered else { return Some(Answer::Natively) };
    // From here on only copies are used: the program can change its memory and its descriptors.
    let errno = match rustix::net::bind(&socket, &address) {
        Ok(()) => return Some(Answer::Done),
        Err(error) if is_refusal(error.raw_os_error()) => error.raw_os_error(),
        Err(error) => return Some(Answer::Errno(error.raw_os_error())),
    };
    let program = program(key.0);
    Some(match context.delegation.bind(socket.as_fd(), address, &program) {
        Ok(()) => Answer::Done,
        Err(failure) => {
            let call = describe_bind(address);
            Answer::Errno(report(context, &program, &call, failure).unwrap_or(errno))
        }
    })
}

fn describe_bind(address: SocketAddr) -> String {
    format!("bind to {address}")
}

fn set_option(
    context: &Context,
    key: Key,
    (fd, wanted): (i32, PrivilegedOption),
    (pointer, length): (u64, u32),
) -> Option<Answer> {
    let gathered = gather(context, key, || {
        let socket = remote::descriptor(key.0, fd)?;
        let value = match wanted.kind {
            OptionKind::Int | OptionKind::Bytes => read(key.0, pointer, length, OPTION_BYTES)?,
            OptionKind::AttachFilter | OptionKind::DetachFilter => Vec::new(),
        };
        Ok((socket, value))
    })?;
    let Ok((socket, value)) = gathered else { return Some(Answer::Natively) };
    let locked = || {
        let locked = option::get_int(socket.as_fd(), libc::SOL_SOCKET, SO_LOCK_FILTER);
        locked.is_ok_and(|locked| locked != 0)
    };
    let raw = match wanted.kind {
        // libpcap then filters itself.
        OptionKind::AttachFilter if locked() => return Some(Answer::Errno(libc::ENOPROTOOPT)),
        OptionKind::DetachFilter if locked() => return Some(Answer::Done),
        OptionKind::AttachFilter | OptionKind::DetachFilter => return Some(Answer::Natively),
        OptionKind::Int => match value.first_chunk() {
            Some(chunk) => RawValue::Int(i32::from_ne_bytes(*chunk)),
            None => return Some(Answer::Natively),
        },
        OptionKind::Bytes => RawValue::Bytes(value.clone()),
    };
    let (level, name) = (wanted.level, wanted.name);
    let errno = match option::set_bytes(socket.as_fd(), level, name, &value) {
        Ok(()) => return Some(Answer::Done),
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    };
    if !is_refusal(errno) {
        return Some(Answer::Errno(errno));
    }
    let program = program(key.0);
    Some(match context.delegation.set_option(socket.as_fd(), (level, name), &raw, &program) {
        Ok(()) => Answer::Done,
        Err(failure) => {
            let call = format!("setsockopt({})", wanted.text);
            Answer::Errno(report(context, &program, &call, failure).unwrap_or(errno))
        }
    })
}

/// Reports why the broker did not make a call. The error number, if the call has failed with another one than the
/// refusal that the program would get without a broker.
fn report(context: &Context, program: &Program, call: &str, failure: Failure) -> Option<i32> {
    let lines = &context.lines;
    match failure {
        Failure::Denied { rule, grant, .. } => {
            let text = denied(call, &rule, grant.as_deref());
            lines.refused(&program.name, program.pid, &text);
            None
        }
        Failure::Kernel { errno, message } if is_refusal(errno) => {
            let text = format!("{call} refused: the broker may lack a capability: {message}");
            lines.refused(&program.name, program.pid, &text);
            None
        }
        Failure::Kernel { errno, .. } => Some(errno),
        Failure::Unavailable { message } => {
            lines.note(&format!(
                "the broker does not answer, the kernel makes calls alone: {message}"
            ));
            None
        }
    }
}

/// The program of a thread, for lines and for the audit.
fn program(tid: u32) -> Program {
    let mut name = remote::name_of(tid);
    while name.len() > PROGRAM_NAME_BYTES {
        name.pop();
    }
    Program { name, pid: remote::process_of(tid).unwrap_or(tid) }
}
