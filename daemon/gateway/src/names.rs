//! The names in a client's certificate.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use sockbroker_monitor::message::gateway::{NAME_MAX, NAMES_MAX, is_plain};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::settings::NameKind;

/// What the gateway reads of a certificate that was verified.
#[derive(Debug)]
pub(crate) struct Named {
    /// Its names, each with its kind: `uri:spiffe://lab/alice`.
    pub(crate) names: Vec<String>,
    /// When it expires.
    pub(crate) until: SystemTime,
}

/// Reads names of these kinds.
pub(crate) fn read(der: &CertificateDer<'_>, kinds: &[NameKind]) -> Result<Named, String> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let until = certificate.validity().not_after.timestamp();
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(until.try_into().unwrap_or(0));
    let extension = certificate
        .subject_alternative_name()
        .map_err(|error| format!("the names of the certificate cannot be read: {error}"))?;
    let general = extension.map(|found| found.value.general_names.as_slice()).unwrap_or_default();
    let mut names = Vec::new();
    for kind in kinds {
        match kind {
            NameKind::Cn => {
                let found = certificate.subject().iter_common_name();
                names.extend(found.filter_map(|name| Some(format!("cn:{}", name.as_str().ok()?))));
            }
            kind => names.extend(general.iter().filter_map(|name| of_kind(name, *kind))),
        }
    }
    if names.is_empty() {
        let text = "the certificate has no name that the broker uses (URI, DNS or e-mail address as subject \
                    alternative name, unless subject_from of the broker says otherwise)";
        return Err(text.to_owned());
    }
    if names.len() > NAMES_MAX {
        return Err(format!("the certificate has {} names: {NAMES_MAX} are allowed", names.len()));
    }
    let is_usable = |name: &String| name.len() <= NAME_MAX && name.chars().all(is_plain);
    if let Some(name) = names.iter().find(|name| !is_usable(name)) {
        return Err(format!(
            "the certificate has a name with blanks, control characters or more than {NAME_MAX} bytes: {name:?}"
        ));
    }
    Ok(Named { names, until })
}

fn of_kind(name: &GeneralName<'_>, kind: NameKind) -> Option<String> {
    match (name, kind) {
        (GeneralName::URI(text), NameKind::Uri) => Some(format!("uri:{text}")),
        (GeneralName::DNSName(text), NameKind::Dns) => Some(format!("dns:{text}")),
        (GeneralName::RFC822Name(text), NameKind::Email) => Some(format!("email:{text}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(sans: Vec<SanType>, cn: Option<&str>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans;
        if let Some(cn) = cn {
            params.distinguished_name.push(DnType::CommonName, cn);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn text(text: &str) -> Ia5String {
        Ia5String::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn names_are_read_by_kind_and_the_common_name_only_on_demand() {
        let sans = vec![
            SanType::DnsName(text("lab7")),
            SanType::Rfc822Name(text("alice@lab")),
            SanType::URI(text("spiffe://lab/alice")),
        ];
        let der = certificate(sans, Some("root"));
        let usual = [NameKind::Uri, NameKind::Dns, NameKind::Email];
        let named = read(&der, &usual).unwrap();
        assert_eq!(named.names, ["uri:spiffe://lab/alice", "dns:lab7", "email:alice@lab"]);
        assert!(named.until > SystemTime::now());
        assert_eq!(read(&der, &[NameKind::Cn]).unwrap().names, ["cn:root"]);
        let bare = certificate(Vec::new(), Some("root"));
        assert!(read(&bare, &usual).unwrap_err().contains("no name that the broker uses"));
    }

    #[test]
    fn odd_names_are_refused() {
        let uri = |uri: &str| SanType::URI(text(uri));
        let kinds = [NameKind::Uri];
        let many = (0..=NAMES_MAX).map(|number| uri(&format!("a:{number}"))).collect();
        assert!(read(&certificate(many, None), &kinds).unwrap_err().contains("17 names"));
        for name in ["a b", "a\nb", &"x".repeat(NAME_MAX)] {
            let error = read(&certificate(vec![uri(name)], None), &kinds).unwrap_err();
            assert!(error.contains("a name with blanks"), "{error}");
        }
    }
}
