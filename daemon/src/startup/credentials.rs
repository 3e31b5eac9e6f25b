//! The credentials of the gateway: read and checked by a process that serves nobody.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sockbroker_gateway::authority::Authority;
use sockbroker_gateway::settings::{ClientCertificates, Credentials, Settings};

/// The bytes of the largest file.
const FILE: u64 = 8 << 20;
/// The permissions of all users.
const OTHERS: u32 = 0o007;

/// Reads the files by their kinds, and checks them together. Returns also what an operator should know.
pub(super) fn read<'a>(
    files: impl IntoIterator<Item = (&'a str, PathBuf)>,
) -> Result<(Credentials, Vec<String>), String> {
    let mut credentials = Credentials::default();
    for (kind, path) in files {
        let secret = ["key", "tokens"].contains(&kind);
        let content = contents(&path, secret)
            .map_err(|reason| format!("remote.{kind}: {}: {reason}", path.display()))?;
        match kind {
            "certificate" => credentials.certificate = content,
            "key" => credentials.key = content,
            "client_ca" => credentials.client_ca = Some(content),
            "revocation" => credentials.revocation = Some(content),
            "tokens" => credentials.tokens = Some(content),
            _ => return Err(format!("remote.{kind}: there is no such file")),
        }
    }
    let settings = Settings::for_check(ClientCertificates::Optional);
    let authority = Authority::new(&credentials, &settings)?;
    Ok((credentials, authority.warnings))
}

fn contents(path: &Path, secret: bool) -> Result<Vec<u8>, String> {
    let text = |error: std::io::Error| error.to_string();
    let file = File::open(path).map_err(text)?;
    let found = file.metadata().map_err(text)?;
    if secret && found.permissions().mode() & OTHERS != 0 {
        return Err("every user can access it: use chmod o-rwx".to_owned());
    }
    let mut content = Vec::new();
    file.take(FILE + 1).read_to_end(&mut content).map_err(text)?;
    if content.len() as u64 > FILE {
        return Err(format!("it is larger than {FILE} bytes"));
    }
    Ok(content)
}

/// The pairs of kind and path of the hidden arguments.
pub(super) fn pairs(arguments: &[PathBuf]) -> impl Iterator<Item = (&str, PathBuf)> {
    let pairs = arguments.chunks_exact(2);
    pairs.filter_map(|pair| Some((pair.first()?.to_str()?, pair.get(1)?.clone())))
}
