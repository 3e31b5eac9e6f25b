//! The package as a service under systemd: install, start, attack, upgrade and remove.
//!
//! Each test boots a container (`systemd-nspawn`, about a second) and runs commands in it, as an administrator and as
//! users. `SOCKBROKER_PACKAGE` is the path of the package.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails; helpers outside of test functions do the same"
)]

/// Defines a test of a function for each version of systemd. The package is installed in the guest.
macro_rules! on_each_system {
    ($name:ident) => {
        mod $name {
            #[test]
            fn with_systemd_257() {
                let test = concat!(stringify!($name), "::with_systemd_257");
                crate::environment::on(crate::environment::System::Reference, test, super::$name);
            }

            #[test]
            fn with_systemd_252() {
                let test = concat!(stringify!($name), "::with_systemd_252");
                crate::environment::on(crate::environment::System::Oldest, test, super::$name);
            }
        }
    };
}

mod environment;
mod guest;
mod install;
mod roles;
mod capture_role;
mod lifecycle;
mod policy;
mod credentials;
mod sandbox;
#[cfg(target_arch = "x86_64")]
mod takeover;
mod journal;
mod upgrade;
mod crashes;
mod persistence;
mod private;
