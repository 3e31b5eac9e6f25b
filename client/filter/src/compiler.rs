//! Compiles expressions with libpcap, or with tcpdump where libpcap is not installed.

use sockbroker_bpf::{Program, tags_in_metadata};

use crate::any_link::by_hardware;
use crate::error::{FilterError, MAX_EXPRESSION_BYTES};
use crate::library::Library;
use crate::link_layer::LinkLayer;
use crate::tcpdump::Tcpdump;

/// Compiles filter expressions.
#[derive(Debug)]
pub struct Compiler(Backend);

#[derive(Debug)]
enum Backend {
    Library(Library),
    Tcpdump(Tcpdump),
}

impl Compiler {
    /// Loads libpcap, and uses tcpdump if it is not installed.
    pub fn new() -> Result<Self, FilterError> {
        Self::first_of([Self::libpcap, Self::tcpdump])
    }

    /// Uses the first of them that is installed.
    fn first_of(compilers: [fn() -> Option<Self>; 2]) -> Result<Self, FilterError> {
        compilers.into_iter().find_map(|find| find()).ok_or(FilterError::NoCompiler)
    }

    /// Uses libpcap, if it is installed.
    pub fn libpcap() -> Option<Self> {
        Library::load().map(|library| Self(Backend::Library(library)))
    }

    /// Uses tcpdump, if it is installed.
    pub fn tcpdump() -> Option<Self> {
        Tcpdump::find().map(|tcpdump| Self(Backend::Tcpdump(tcpdump)))
    }

    /// What compiles: the version of libpcap, or the path of tcpdump.
    pub fn description(&self) -> String {
        match &self.0 {
            Backend::Library(library) => library.version(),
            Backend::Tcpdump(tcpdump) => tcpdump.path().display().to_string(),
        }
    }

    /// Compiles an expression for packets as a socket receives them. It can wait for a name server.
    pub fn compile(&self, expression: &str, link: LinkLayer) -> Result<Program, FilterError> {
        let program = self.compile_for_file(expression, link)?;
        let program = if link == LinkLayer::Ethernet && names_vlan(expression) {
            tags_in_metadata(&program)
                .map_err(|error| FilterError::Vlan { expression: expression.to_owned(), error })?
        } else {
            program
        };
        program
            .check()
            .map_err(|error| FilterError::Kernel { expression: expression.to_owned(), error })?;
        Ok(program)
    }

    /// Compiles an expression for packets of all interfaces, as a socket receives them: those that begin with an Ethernet
    /// header, and those that begin with an IP header. The program drops all others, and the latter too if the expression
    /// cannot select them, such as `ether host`. It can wait for a name server.
    pub fn compile_for_any(&self, expression: &str) -> Result<Program, FilterError> {
        let ethernet = self.compile(expression, LinkLayer::Ethernet)?;
        let ip = self.compile(expression, LinkLayer::RawIp).ok();
        let program = by_hardware(&ethernet, ip.as_ref());
        program
            .check()
            .map_err(|error| FilterError::Kernel { expression: expression.to_owned(), error })?;
        Ok(program)
    }

    /// Compiles an expression for packets in a capture file, which contain their VLAN tags. The kernel can refuse the
    /// program.
    pub fn compile_for_file(
        &self,
        expression: &str,
        link: LinkLayer,
    ) -> Result<Program, FilterError> {
        let bytes = expression.len();
        if bytes > MAX_EXPRESSION_BYTES {
            return Err(FilterError::TooLong { bytes });
        }
        if expression.contains('\0') {
            return Err(FilterError::NullByte);
        }
        match &self.0 {
            Backend::Library(library) => library.compile(expression, link),
            Backend::Tcpdump(tcpdump) => tcpdump.compile(expression, link),
        }
    }
}

/// Whether an expression contains the word `vlan`.
fn names_vlan(expression: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || "_-.".contains(letter);
    expression.split(|letter| !is_part(letter)).any(|word| word == "vlan")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_without_libpcap_and_tcpdump_is_reported_with_what_to_install() {
        let error = Compiler::first_of([|| None, || None]).unwrap_err().to_string();
        assert!(error.contains("install libpcap"), "{error}");
        // The second one is used if the first is not installed.
        let second = Compiler::first_of([|| None, Compiler::libpcap]);
        assert_eq!(second.is_ok(), Compiler::libpcap().is_some());
    }

    #[test]
    fn vlan_is_a_word_of_its_own() {
        for expression in ["vlan", "not vlan", "(vlan 100)", "udp and(vlan)", "!vlan&&udp"] {
            assert!(names_vlan(expression), "{expression}");
        }
        for expression in ["", "udp", "host vlan.example.org", "host my-vlan", "host vlan_1"] {
            assert!(!names_vlan(expression), "{expression}");
        }
    }
}
