//! The key that signs tokens, as a JSON Web Key in a file that only its owner can read; and the set of its public half
//! beside it, which servers are given.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use quire_proto::{Error, Grant, Result};
use serde::{Deserialize, Serialize};

use super::Claims;

/// Signs tokens. `Debug` does not show it.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

/// A private key of RFC 8037.
#[derive(Serialize, Deserialize)]
struct PrivateKey {
    kty: String,
    crv: String,
    x: String,
    d: String,
}

impl SigningKey {
    /// A new one, from the system's source of randomness.
    pub fn generate() -> Result<SigningKey> {
        Ok(SigningKey { pair: Ed25519KeyPair::generate().map_err(|_| Error::invalid("no key could be made"))? })
    }

    /// Where the public half of the key in `file` lies: beside it.
    pub fn public_file(file: &Path) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(".pub");
        name.into()
    }

    /// Writes the key, and its public half beside it; never over another one.
    pub fn save(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::from_io(format!("folder {}", folder.display()), e))?;
        }
        let seed = self.pair.seed().and_then(|seed| seed.as_be_bytes()).map_err(|_| unusable(file))?;
        let key = PrivateKey {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x: URL_SAFE_NO_PAD.encode(self.pair.public_key()),
            d: URL_SAFE_NO_PAD.encode(seed.as_ref()),
        };
        write(file, 0o600, &key)?;
        write(&SigningKey::public_file(file), 0o644, &serde_json::json!({ "keys": [self.public()?] }))
    }

    /// Reads a key.
    pub fn load(file: &Path) -> Result<SigningKey> {
        let text = fs::read(file).map_err(|e| {
            Error::from_io(format!("key {}", file.display()), e)
                .with_remedy("Make one with `quire token key`, or name one with --key.")
        })?;
        let key: PrivateKey = serde_json::from_slice(&text).map_err(|_| unusable(file))?;
        let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| unusable(file));
        if (key.kty.as_str(), key.crv.as_str()) != ("OKP", "Ed25519") {
            return Err(unusable(file));
        }
        let pair = Ed25519KeyPair::from_seed_and_public_key(&decoded(&key.d)?, &decoded(&key.x)?);
        Ok(SigningKey { pair: pair.map_err(|_| unusable(file))? })
    }

    /// A token that carries a grant.
    pub fn sign(&self, grant: &Grant, now: SystemTime) -> Result<String> {
        let header = Header { kid: self.public()?.common.key_id, ..Header::new(Algorithm::EdDSA) };
        let signed = jsonwebtoken::encode(&header, &Claims::of(grant, now)?, &self.encoding()?);
        signed.map_err(|e| Error::invalid(format!("the token cannot be signed: {e}")))
    }

    fn encoding(&self) -> Result<EncodingKey> {
        let der = self.pair.to_pkcs8v1().map_err(|_| Error::invalid("the key cannot be used"))?;
        Ok(EncodingKey::from_ed_der(der.as_ref()))
    }

    /// The public half; its id is its thumbprint (RFC 7638).
    fn public(&self) -> Result<Jwk> {
        let failed = |e| Error::invalid(format!("the key cannot be used: {e}"));
        let mut jwk = Jwk::from_encoding_key(&self.encoding()?, Algorithm::EdDSA).map_err(failed)?;
        jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).map_err(failed)?);
        Ok(jwk)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(hidden)")
    }
}

fn unusable(file: &Path) -> Error {
    Error::invalid(format!("{} is not a key that signs tokens", file.display()))
        .with_remedy("Make one with `quire token key`; the .pub file beside it is for servers.")
}

fn write(file: &Path, mode: u32, content: &impl Serialize) -> Result<()> {
    let failed = |e| {
        Error::from_io(format!("writing {}", file.display()), e)
            .with_remedy("Choose another file: none is overwritten.")
    };
    let mut text = serde_json::to_string(content).map_err(|e| Error::invalid(format!("a key: {e}")))?;
    text.push('\n');
    let mut opened: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(file).map_err(failed)?;
    opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all()).map_err(failed)
}
