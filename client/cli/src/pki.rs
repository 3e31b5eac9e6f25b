//! `sockbroker pki`: an authority for the certificates of a lab.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueHint};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::{Screen, report};

/// The certificate of the authority, its key, and its empty revocation list.
const AUTHORITY: &str = "ca.pem";
const KEY: &str = "ca.key";
const REVOCATION: &str = "crl.pem";
/// How long the authority is valid, in days.
const VALID: u64 = 3650;
/// A clock of another host can be behind.
const BEFORE: Duration = Duration::from_hours(1);

/// A moment as the library for certificates has it.
macro_rules! moment {
    ($time:expr) => {
        date_time_ymd(1970, 1, 1) + $time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    };
}

/// The subcommands of `sockbroker pki`.
#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    Init(InitArgs),
    Server(ServerArgs),
    Client(ClientArgs),
}

/// Create an authority: its certificate, its key and an empty revocation list.
///
/// Writes ca.pem, ca.key and crl.pem. Keep ca.key where no broker runs: who has it is every client.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sockbroker pki init --folder lab
  sockbroker pki server --folder lab lab7.example.org
  sockbroker pki client --folder lab spiffe://lab/alice")]
pub(crate) struct InitArgs {
    /// The folder of the files.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, default_value = ".")]
    folder: PathBuf,

    /// The name of the authority, which people see. Default: sockbroker and random digits.
    #[arg(long)]
    name: Option<String>,
}

/// Create the certificate and the key of a broker, signed by the authority.
///
/// Writes NAME.pem and NAME.key, for certificate and key in section `remote` of sockbrokerd.toml(5).
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The names and addresses by which clients reach the broker; the first one names the files.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// The folder of the authority, and of the new files.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, default_value = ".")]
    folder: PathBuf,

    /// How long the certificate is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u64,
}

/// Create the certificate and the key of a client, signed by the authority.
///
/// Writes cert and key to a folder with the last part of NAME as its name, together with ca: copy them to
/// ~/.config/sockbroker/HOST/ of the client. NAME is a URI, an e-mail address or a DNS name.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The name by which rules select the client.
    name: String,

    /// The folder of the authority, and of the new folder.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, default_value = ".")]
    folder: PathBuf,

    /// How long the certificate is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u64,
}

pub(crate) fn run(global: &Global, command: &PkiCommand) -> Result<Exit, Failure> {
    global.refuse("pki")?;
    let (files, next) = match command {
        PkiCommand::Init(args) => init(args)?,
        PkiCommand::Server(args) => server(args)?,
        PkiCommand::Client(args) => client(args)?,
    };
    let mut screen = Screen::new();
    for file in files {
        screen.line(file.display())?;
    }
    for line in next {
        report(&line);
    }
    Ok(Exit::Done)
}

/// The files that were written, and what to do with them.
type Written = (Vec<PathBuf>, Vec<String>);

fn init(args: &InitArgs) -> Result<Written, Failure> {
    fs::create_dir_all(&args.folder)
        .map_err(|error| failed("create", &args.folder, &error.to_string()))?;
    let mut params = CertificateParams::default();
    let name = args.name.clone().map_or_else(own_name, Ok)?;
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, VALID);
    let issuer = CertifiedIssuer::self_signed(params, new_key()?).map_err(|error| wrong(&error))?;
    let list = CertificateRevocationListParams {
        this_update: moment!(SystemTime::now() - BEFORE),
        next_update: moment!(SystemTime::now() + days(VALID)),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).map_err(|error| wrong(&error))?;
    let key = pem("PRIVATE KEY", &issuer.key().serialize_der());
    let files = [
        write(&args.folder, KEY, &key, 0o600)?,
        write(&args.folder, AUTHORITY, &pem("CERTIFICATE", issuer.der()), 0o644)?,
        write(&args.folder, REVOCATION, &pem("X509 CRL", list.der()), 0o644)?,
    ];
    let next = vec![format!(
        "next: sockbroker pki server --folder {0} HOST; sockbroker pki client --folder {0} NAME",
        args.folder.display()
    )];
    Ok((files.into(), next))
}

/// A name that no other authority has: verification looks for an authority by its name.
fn own_name() -> Result<String, Failure> {
    let number = getrandom::u32()
        .map_err(|error| Failure::new(Exit::System, format!("cannot choose a name: {error}")))?;
    Ok(format!("sockbroker {number:08x}"))
}

fn server(args: &ServerArgs) -> Result<Written, Failure> {
    let mut params = CertificateParams::new(args.names.clone())
        .map_err(|error| Failure::new(Exit::Usage, format!("cannot use the names: {error}")))?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let first = args.names.first().map(String::as_str).unwrap_or_default();
    let (certificate, key) = sign(&args.folder, params, first, args.days)?;
    let name = file_name(first)?;
    let files = vec![
        write(&args.folder, &format!("{name}.pem"), &certificate, 0o644)?,
        write(&args.folder, &format!("{name}.key"), &key, 0o600)?,
    ];
    let next = vec![
        "next: name both files in section [remote] of sockbrokerd.toml, and let the broker's user read the key"
            .to_owned(),
    ];
    Ok((files, next))
}

fn client(args: &ClientArgs) -> Result<Written, Failure> {
    let text = Ia5String::try_from(args.name.as_str());
    let text =
        text.map_err(|error| Failure::new(Exit::Usage, format!("cannot use the name: {error}")))?;
    let (kind, san) = if args.name.contains(':') {
        ("uri", SanType::URI(text))
    } else if args.name.contains('@') {
        ("email", SanType::Rfc822Name(text))
    } else {
        ("dns", SanType::DnsName(text))
    };
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![san];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let (certificate, key) = sign(&args.folder, params, &args.name, args.days)?;
    let authority = read(&args.folder, AUTHORITY)?;
    let last = args.name.rsplit(['/', ':']).next().unwrap_or_default();
    let folder = args.folder.join(file_name(last)?);
    fs::create_dir_all(&folder).map_err(|error| failed("create", &folder, &error.to_string()))?;
    let authority = String::from_utf8_lossy(&authority);
    let files = vec![
        write(&folder, "cert", &certificate, 0o644)?,
        write(&folder, "key", &key, 0o600)?,
        write(&folder, "ca", &authority, 0o644)?,
    ];
    let next = vec![
        "next: copy them to ~/.config/sockbroker/HOST/ of the client".to_owned(),
        format!("rules select it by: subject = {{ certificates = [\"{kind}:{}\"] }}", args.name),
    ];
    Ok((files, next))
}

/// Signs a certificate for a new key. Both as PEM.
fn sign(
    folder: &Path,
    mut params: CertificateParams,
    name: &str,
    valid: u64,
) -> Result<(String, String), Failure> {
    let (authority, key) = (read(folder, AUTHORITY)?, read(folder, KEY)?);
    let unusable = |name: &str, error: &dyn std::fmt::Display| {
        failed("use", &folder.join(name), &error.to_string())
    };
    let authority =
        CertificateDer::from_pem_slice(&authority).map_err(|error| unusable(AUTHORITY, &error))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| unusable(KEY, &error))?;
    let key = KeyPair::try_from(&key).map_err(|error| unusable(KEY, &error))?;
    let issuer =
        Issuer::from_ca_cert_der(&authority, key).map_err(|error| unusable(AUTHORITY, &error))?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    valid_for(&mut params, valid);
    let key = new_key()?;
    let certificate = params.signed_by(&key, &issuer).map_err(|error| wrong(&error))?;
    Ok((pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der())))
}

fn new_key() -> Result<KeyPair, Failure> {
    KeyPair::generate().map_err(|error| wrong(&error))
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count.saturating_mul(86_400).min(VALID * 10 * 86_400))
}

fn valid_for(params: &mut CertificateParams, count: u64) {
    let now = SystemTime::now();
    params.not_before = moment!(now - BEFORE);
    params.not_after = moment!(now + days(count));
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64_simd::STANDARD.encode_to_string(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, others) = rest.split_at(rest.len().min(64));
        lines.push_str(line);
        lines.push('\n');
        rest = others;
    }
    lines + &format!("-----END {label}-----\n")
}

/// A name that is one plain part of a path.
fn file_name(name: &str) -> Result<&str, Failure> {
    let is_plain = |one: char| one.is_ascii_alphanumeric() || "._-@+*:".contains(one);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
        let text =
            format!("cannot name a file after {name:?}: use letters, digits, dots and hyphens");
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(name)
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let path = folder.join(name);
    fs::read(&path).map_err(|error| {
        failed("read", &path, &format!("{error}: create an authority with `sockbroker pki init`"))
    })
}

/// Writes a new file. One that exists stays: it may be in use.
fn write(folder: &Path, name: &str, text: &str, mode: u32) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| failed("write", &path, &error.to_string()))?;
    Ok(path)
}

fn failed(what: &str, path: &Path, reason: &str) -> Failure {
    Failure::new(Exit::Stream, format!("cannot {what} {}: {reason}", path.display()))
}

fn wrong(error: &rcgen::Error) -> Failure {
    Failure::new(Exit::System, format!("cannot make a certificate: {error}"))
}
