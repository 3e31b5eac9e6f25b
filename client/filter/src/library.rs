//! libpcap, loaded at run time. The only unsafe code of the crate.

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use sockbroker_bpf::{Instruction, Program};

use crate::error::FilterError;
use crate::link_layer::LinkLayer;

/// The names of the library: of libpcap itself, of Debian, and of development packages.
const NAMES: [&str; 3] = ["libpcap.so.1", "libpcap.so.0.8", "libpcap.so"];
/// The bytes of each packet that a program accepts, as in tcpdump.
const SNAPLEN: c_int = 262_144;
/// No netmask: `ip broadcast` is refused (`PCAP_NETMASK_UNKNOWN`).
const NO_NETMASK: c_uint = u32::MAX;

/// `pcap_compile` of libpcap before 1.8 has global state, which all copies of the library in the process share.
static COMPILING: Mutex<()> = Mutex::new(());

/// `pcap_t`.
#[repr(C)]
struct Pcap {
    _opaque: [u8; 0],
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct BpfInsn {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `struct bpf_program`.
#[repr(C)]
struct BpfProgram {
    len: c_uint,
    insns: *mut BpfInsn,
}

type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut Pcap;
type Compile =
    unsafe extern "C" fn(*mut Pcap, *mut BpfProgram, *const c_char, c_int, c_uint) -> c_int;
type FreeCode = unsafe extern "C" fn(*mut BpfProgram);
type GetErr = unsafe extern "C" fn(*mut Pcap) -> *mut c_char;
type Close = unsafe extern "C" fn(*mut Pcap);
type LibVersion = unsafe extern "C" fn() -> *const c_char;

/// The functions of the library, which stays loaded as long as this value.
pub(crate) struct Library {
    open_dead: OpenDead,
    compile: Compile,
    free_code: FreeCode,
    get_err: GetErr,
    close: Close,
    lib_version: LibVersion,
    _loaded: libloading::Library,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("version", &self.version()).finish_non_exhaustive()
    }
}

impl Library {
    /// Loads the library, or returns `None` if it is not installed or lacks a function.
    pub(crate) fn load() -> Option<Self> {
        NAMES.iter().find_map(|name| Self::load_name(name))
    }

    fn load_name(name: &str) -> Option<Self> {
        // SAFETY: the constructors of libpcap and of its dependencies have no requirements. It is the library of the
        // system, found as by the loader of any program.
        let library = unsafe { libloading::Library::new(name) }.ok()?;
        // SAFETY: the type is that of the function in pcap/pcap.h.
        let open_dead = *unsafe { library.get::<OpenDead>(b"pcap_open_dead\0") }.ok()?;
        // SAFETY: the type is that of the function in pcap/pcap.h.
        let compile = *unsafe { library.get::<Compile>(b"pcap_compile\0") }.ok()?;
        // SAFETY: the type is that of the function in pcap/pcap.h.
        let free_code = *unsafe { library.get::<FreeCode>(b"pcap_freecode\0") }.ok()?;
        // SAFETY: the type is that of the function in pcap/pcap.h.
        let get_err = *unsafe { library.get::<GetErr>(b"pcap_geterr\0") }.ok()?;
        // SAFETY: the type is that of the function in pcap/pcap.h.
        let close = *unsafe { library.get::<Close>(b"pcap_close\0") }.ok()?;
        // SAFETY: the type is that of the function in pcap/pcap.h.
        let lib_version = *unsafe { library.get::<LibVersion>(b"pcap_lib_version\0") }.ok()?;
        Some(Self { open_dead, compile, free_code, get_err, close, lib_version, _loaded: library })
    }

    /// Such as `libpcap version 1.10.3 (with TPACKET_V3)`.
    pub(crate) fn version(&self) -> String {
        // SAFETY: the library is loaded, and the function takes nothing.
        let text = unsafe { (self.lib_version)() };
        owned(text)
    }

    pub(crate) fn compile(
        &self,
        expression: &str,
        link: LinkLayer,
    ) -> Result<Program, FilterError> {
        let text = CString::new(expression).map_err(|_error| FilterError::NullByte)?;
        let refused =
            |message: String| FilterError::Refused { expression: expression.to_owned(), message };
        let _compiling = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = Handle::open(self, link).ok_or_else(|| refused("out of memory".to_owned()))?;
        handle.compile(&text).map_err(refused)
    }
}

/// A handle that belongs to no interface (`pcap_open_dead`).
struct Handle<'a> {
    library: &'a Library,
    pcap: NonNull<Pcap>,
}

impl<'a> Handle<'a> {
    fn open(library: &'a Library, link: LinkLayer) -> Option<Self> {
        // SAFETY: the library is loaded, and the function takes two numbers.
        let pcap = unsafe { (library.open_dead)(link.number(), SNAPLEN) };
        NonNull::new(pcap).map(|pcap| Self { library, pcap })
    }

    fn compile(&self, expression: &CStr) -> Result<Program, String> {
        let mut code = BpfProgram { len: 0, insns: ptr::null_mut() };
        let (pcap, text) = (self.pcap.as_ptr(), expression.as_ptr());
        // SAFETY: the handle is open and no other thread has it, the text ends with a null byte and lives as long as the
        // call, and `code` can be written.
        let status = unsafe { (self.library.compile)(pcap, &raw mut code, text, 1, NO_NETMASK) };
        if status != 0 {
            // SAFETY: the handle is open. The message lives until its next call.
            let message = unsafe { (self.library.get_err)(pcap) };
            return Err(owned(message));
        }
        let length = usize::try_from(code.len).unwrap_or_default();
        let instructions: &[BpfInsn] = if code.insns.is_null() {
            &[]
        } else {
            // SAFETY: a successful call has written `len` instructions at `insns`, which live until `pcap_freecode`.
            unsafe { std::slice::from_raw_parts(code.insns, length) }
        };
        let copy = |&BpfInsn { code, jt, jf, k }: &BpfInsn| Instruction {
            code,
            jump_true: jt,
            jump_false: jf,
            k,
        };
        let program = Program(instructions.iter().map(copy).collect());
        // SAFETY: the call above has filled `code`, and nothing refers to its instructions any more.
        unsafe { (self.library.free_code)(&raw mut code) };
        Ok(program)
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and this is its last use.
        unsafe { (self.library.close)(self.pcap.as_ptr()) };
    }
}

/// Copies a text of the library, which is not null.
fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: it is a text of the library, which ends with a null byte and lives until the next call on its handle.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}
