//! Clients on other machines: TLS, certificates, tokens, and the gateway under attack.

mod fixture;
mod certificates;
mod tokens;
mod principals;
mod channels;
mod reload;
mod faults;
mod clients;
