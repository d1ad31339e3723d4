//! Certificates for tests, made from nothing: a few bytes of DER and a signature.

use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) common_name: String,
    pub(crate) certificate: Vec<u8>,
    pub(crate) pkcs8: Vec<u8>,
}

/// What a certificate says.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) common_name: &'a str,
    pub(crate) alt_name: Option<&'a str>,
    pub(crate) authority: bool,
    pub(crate) not_after: &'a str,
}

pub(crate) fn wanted(common_name: &str) -> Wanted<'_> {
    let not_after = "20991231235959Z";
    Wanted {
        common_name,
        alt_name: None,
        authority: false,
        not_after,
    }
}

impl Identity {
    /// Makes a certificate signed by `issuer`, or by itself.
    pub(crate) fn new(wanted: Wanted<'_>, issuer: Option<&Identity>) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
            .unwrap()
            .as_ref()
            .to_vec();
        let own = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8, &random).unwrap();
        let signer = match issuer {
            Some(issuer) => EcdsaKeyPair::from_pkcs8(algorithm, &issuer.pkcs8, &random).unwrap(),
            None => EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8, &random).unwrap(),
        };
        let issuer_name = issuer.map_or(wanted.common_name, |issuer| &issuer.common_name);
        let tbs = tbs_certificate(wanted, issuer_name, own.public_key().as_ref());
        let signature = signer.sign(&random, &tbs).unwrap();
        let algorithm = sequence(&[tlv(0x06, ECDSA_WITH_SHA256)]);
        let certificate = sequence(&[tbs, algorithm, bit_string(signature.as_ref())]);
        Self {
            common_name: wanted.common_name.to_owned(),
            certificate,
            pkcs8,
        }
    }

    /// Writes `<name>.crt` and `<name>.key`.
    pub(crate) fn save(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        use std::os::unix::fs::PermissionsExt;
        let (crt, key) = (
            dir.join(format!("{name}.crt")),
            dir.join(format!("{name}.key")),
        );
        std::fs::write(&crt, pem("CERTIFICATE", &self.certificate)).unwrap();
        std::fs::write(&key, pem("PRIVATE KEY", &self.pkcs8)).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        (crt, key)
    }
}

fn tbs_certificate(wanted: Wanted<'_>, issuer: &str, public_key: &[u8]) -> Vec<u8> {
    let mut extensions = Vec::new();
    if wanted.authority {
        let value = sequence(&[tlv(0x01, &[0xff])]);
        extensions.push(extension(BASIC_CONSTRAINTS, &value));
    }
    if let Some(name) = wanted.alt_name {
        extensions.push(extension(
            SUBJECT_ALT_NAME,
            &sequence(&[tlv(0x82, name.as_bytes())]),
        ));
    }
    if extensions.is_empty() {
        extensions.push(extension(BASIC_CONSTRAINTS, &sequence(&[])));
    }
    sequence(&[
        tlv(0xa0, &tlv(0x02, &[2])),
        tlv(0x02, &[1]),
        sequence(&[tlv(0x06, ECDSA_WITH_SHA256)]),
        name(issuer),
        sequence(&[
            tlv(0x17, b"200101000000Z"),
            tlv(0x18, wanted.not_after.as_bytes()),
        ]),
        name(wanted.common_name),
        sequence(&[
            sequence(&[tlv(0x06, EC_PUBLIC_KEY), tlv(0x06, PRIME256V1)]),
            bit_string(public_key),
        ]),
        tlv(0xa3, &sequence(&extensions)),
    ])
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let length = match u8::try_from(len) {
        Ok(short) if short < 0x80 => vec![short],
        Ok(byte) => vec![0x81, byte],
        Err(_) => [&[0x82], &u16::try_from(len).unwrap().to_be_bytes()[..]].concat(),
    };
    [&[tag], length.as_slice(), content].concat()
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes].concat())
}

fn name(common_name: &str) -> Vec<u8> {
    let attribute = sequence(&[tlv(0x06, COMMON_NAME), tlv(0x0c, common_name.as_bytes())]);
    sequence(&[tlv(0x31, &attribute)])
}

fn extension(id: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[tlv(0x06, id), tlv(0x04, value)])
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits =
            chunk.iter().fold(0, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
