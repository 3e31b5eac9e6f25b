//! The package as a service: installed, started, attacked, upgraded and removed under a real systemd.
//!
//! Each test boots a machine of its own (`systemd-nspawn`, about a second) and speaks to it as an
//! administrator and as users would: by commands. `SOCKBROKER_PACKAGE` names the package.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails; helpers beside the test functions use it too"
)]

/// Makes a test of a function for each system; the guest has the package installed.
macro_rules! on_each_system {
    ($name:ident) => {
        mod $name {
            #[test]
            fn on_the_reference_system() {
                let test = concat!(stringify!($name), "::on_the_reference_system");
                crate::ground::on(crate::ground::System::Reference, test, super::$name);
            }

            #[test]
            fn on_the_system_of_this_machine() {
                let test = concat!(stringify!($name), "::on_the_system_of_this_machine");
                crate::ground::on(crate::ground::System::Own, test, super::$name);
            }
        }
    };
}

mod ground;
mod guest;
mod install;
mod roles;
mod life;
mod policy;
mod credentials;
mod sandbox;
#[cfg(target_arch = "x86_64")]
mod takeover;
mod journal;
mod upgrade;
mod private;
