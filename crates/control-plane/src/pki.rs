//! Certificates: one authority for the cluster and another for etcd, so that no user of the cluster can connect to etcd.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::jiff;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// A certificate authority. Its private key stays in memory.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its private key, both PEM-encoded.
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Paths of a certificate and its key.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> anyhow::Result<Authority> {
        let mut params = params(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Returns the authority's certificate, PEM-encoded.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for a server on 127.0.0.1.
    pub(crate) fn server(&self, name: &str) -> anyhow::Result<Certified> {
        self.server_of(name, &["127.0.0.1", "localhost"])
    }

    /// Issues a certificate for a server with these names and addresses.
    pub(crate) fn server_of(&self, name: &str, hosts: &[&str]) -> anyhow::Result<Certified> {
        let mut params = params(name, hosts)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// Issues a client certificate for `user`, in `group` if given.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> anyhow::Result<Certified> {
        let mut params = params(user, &[])?;
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> anyhow::Result<Certified> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?.pem();
        Ok(Certified { certificate, key: key.serialize_pem() })
    }
}

impl Certified {
    /// Writes `NAME.crt` and `NAME.key` to `dir`.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> anyhow::Result<Files> {
        let files =
            Files { certificate: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        write_private(&files.certificate, &self.certificate)?;
        write_private(&files.key, &self.key)?;
        Ok(files)
    }
}

/// Returns the key pair that signs ServiceAccount tokens: (private, public), PEM-encoded.
pub(crate) fn token_keys() -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// Writes a new file that only its owner may read.
pub(crate) fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(content.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Returns a validity from yesterday for a year, which tolerates clock skew and long-lived clusters.
fn params(name: &str, hosts: &[&str]) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let (year, month, day) = ymd(today.yesterday()?)?;
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = ymd(today.saturating_add(jiff::Span::new().days(365)))?;
    params.not_after = date_time_ymd(year, month, day);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Converts a date for `rcgen`.
fn ymd(date: jiff::civil::Date) -> anyhow::Result<(i32, u8, u8)> {
    Ok((i32::from(date.year()), u8::try_from(date.month())?, u8::try_from(date.day())?))
}
