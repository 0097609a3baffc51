//! Checking tokens against the server's set of public keys.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{DecodingKey, Validation};
use parking_lot::Mutex;
use quire_proto::{Error, Grant, Result};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::{AUDIENCE, Claims};
use crate::reload::Reloaded;

/// Clocks of issuer and server may differ by so many seconds.
const LEEWAY_SECONDS: u64 = 30;
/// Tokens whose signature was checked are remembered, so many of them.
const MOST_REMEMBERED: usize = 4096;
/// No longer token is looked at.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Lets calls in that carry a token of a known key. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    keys: Arc<Reloaded<KeySet>>,
    known: Arc<Mutex<Known>>,
}

/// Public keys, and whether there is a key for a token.
pub(crate) struct KeySet {
    keys: Vec<(Option<String>, DecodingKey)>,
}

/// Tokens that were good, under the keys that said so.
#[derive(Default)]
struct Known {
    grants: HashMap<[u8; 32], Grant>,
    generation: u64,
}

impl KeySet {
    pub(crate) fn parse(file: &Path, text: &[u8]) -> Result<KeySet> {
        let wrong = |problem: &dyn std::fmt::Display| {
            Error::invalid(format!("key set {}: {problem}", file.display()))
                .with_remedy("It is a JSON Web Key Set of public keys; `quire token key` writes one into a .pub file.")
        };
        let set: JwkSet = serde_json::from_slice(text).map_err(|e| wrong(&e))?;
        let mut keys = Vec::with_capacity(set.keys.len());
        for key in &set.keys {
            if matches!(key.algorithm, AlgorithmParameters::OctetKey(_)) {
                return Err(wrong(&"it holds a shared secret, by which everybody who checks tokens can make them"));
            }
            keys.push((key.common.key_id.clone(), DecodingKey::from_jwk(key).map_err(|e| wrong(&e))?));
        }
        if keys.is_empty() {
            return Err(wrong(&"it holds no key"));
        }
        Ok(KeySet { keys })
    }

    fn check(&self, token: &str) -> Option<Grant> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let key = match &header.kid {
            Some(kid) => self.keys.iter().find(|(id, _)| id.as_ref() == Some(kid)),
            None if self.keys.len() == 1 => self.keys.first(),
            None => None,
        };
        let (_, key) = key?;
        let mut validation = Validation::new_for_family(key.family());
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.required_spec_claims.clear();
        validation.set_audience(&[AUDIENCE]);
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation).ok()?.claims;
        claims.grant().ok()
    }
}

impl Verifier {
    /// Goes by the keys in a file, and reads it again when it has changed.
    pub fn load(file: PathBuf) -> Result<Verifier> {
        let keys = Reloaded::load(vec![file], |files, texts| KeySet::parse(&files[0], &texts[0]))?;
        Ok(Verifier { keys: Arc::new(keys), known: Arc::default() })
    }

    pub(crate) fn reload_if_changed(&self) {
        self.keys.reload_if_changed();
    }

    /// What a token allows; none if it is not good, or not any more.
    fn grant(&self, token: &str) -> Option<Grant> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let digest = *blake3::hash(token.as_bytes()).as_bytes();
        let (generation, keys) = self.keys.current();
        {
            let mut known = self.known.lock();
            if known.generation != generation {
                *known = Known { generation, grants: HashMap::new() };
            }
            if let Some(grant) = known.grants.get(&digest) {
                let is_good = grant.expires.is_none_or(|at| SystemTime::now() < at);
                return is_good.then(|| grant.clone());
            }
        }
        let grant = keys.check(token)?;
        let mut known = self.known.lock();
        if known.grants.len() >= MOST_REMEMBERED {
            known.grants.clear();
        }
        if known.generation == generation {
            known.grants.insert(digest, grant.clone());
        }
        Some(grant)
    }
}

impl Interceptor for Verifier {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = request.metadata().get("authorization").ok_or_else(|| {
            Status::unauthenticated("this server asks for a token, in the metadata `authorization: Bearer TOKEN`")
        })?;
        let token = value.to_str().ok().and_then(|text| text.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        // What is wrong with a token helps only those who make up tokens.
        let grant = token.and_then(|token| self.grant(token));
        let grant = grant.ok_or_else(|| Status::unauthenticated("the token is not good, or has expired"))?;
        request.extensions_mut().insert(grant);
        Ok(request)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use quire_proto::{Right, VolumePattern};
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::tokens::SigningKey;

    struct House {
        dir: TempDir,
        key: SigningKey,
        verifier: Verifier,
    }

    impl House {
        fn new() -> House {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("key");
            SigningKey::generate().unwrap().save(&file).unwrap();
            let key = SigningKey::load(&file).unwrap();
            let verifier = Verifier::load(SigningKey::public_file(&file)).unwrap();
            House { dir, key, verifier }
        }

        fn sign(&self, grant: &Grant) -> String {
            self.key.sign(grant, SystemTime::now()).unwrap()
        }
    }

    fn grant(expires: Option<SystemTime>) -> Grant {
        let volumes = vec![VolumePattern::parse("team/*").unwrap()];
        // Whole seconds are what a token holds.
        Grant { subject: "ada".into(), volumes, rights: vec![Right::Read, Right::Write], expires, from_lsn: None }
    }

    fn ask(verifier: &Verifier, authorization: Option<&str>) -> Result<Grant, Status> {
        let mut request = Request::new(());
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        let (grant, ()) = quire_proto::wire::authorized(verifier.clone().call(request)?)?;
        Ok(grant)
    }

    fn part(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    #[test]
    fn a_token_gives_what_was_signed() {
        let house = House::new();
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        for wanted in [grant(None), grant(Some(expires)), Grant::everything()] {
            let token = house.sign(&wanted);
            for scheme in ["Bearer", "bearer"] {
                // The second time it is remembered.
                assert_eq!(ask(&house.verifier, Some(&format!("{scheme} {token}"))).unwrap(), wanted);
            }
        }
    }

    #[test]
    fn every_other_token_is_refused_without_a_reason() {
        let house = House::new();
        let good = house.sign(&grant(None));
        let other = SigningKey::generate().unwrap().sign(&grant(None), SystemTime::now()).unwrap();
        let expired = house.sign(&grant(Some(SystemTime::now() - Duration::from_secs(LEEWAY_SECONDS + 5))));
        let parts: Vec<&str> = good.split('.').collect();
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
        claims["quire"]["volumes"] = json!(["*"]);
        let changed = format!("{}.{}.{}", parts[0], part(&claims), parts[2]);
        let none = format!("{}.{}.", part(&json!({"alg": "none"})), parts[1]);
        // The public key as the secret of an algorithm that shares one.
        let public = std::fs::read(SigningKey::public_file(&house.dir.path().join("key"))).unwrap();
        let secret = EncodingKey::from_secret(&public).unwrap();
        let mut confused = Header::new(Algorithm::HS256);
        confused.kid = header["kid"].as_str().map(Into::into);
        let shared = jsonwebtoken::encode(&confused, &claims, &secret).unwrap();
        let unknown = good.replacen(parts[0], &part(&json!({"alg": "EdDSA", "kid": "nobody"})), 1);
        let long = format!("{good}{}", "A".repeat(MAX_TOKEN_BYTES));
        let mut flipped = good.clone().into_bytes();
        let last = flipped.len() - 10;
        flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
        let flipped = String::from_utf8(flipped).unwrap();
        for token in [&other, &expired, &changed, &none, &shared, &unknown, &long, &flipped, "", "x", "a.b.c"] {
            let refused = ask(&house.verifier, Some(&format!("Bearer {token}"))).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{token}");
            assert_eq!(refused.message(), "the token is not good, or has expired", "{token}");
        }
        for value in [None, Some("Basic eDp5"), Some(good.as_str())] {
            assert_eq!(ask(&house.verifier, value).unwrap_err().code(), tonic::Code::Unauthenticated);
        }
    }

    #[test]
    fn what_a_token_says_besides_is_checked_too() {
        let house = House::new();
        let sign = |claims: Value| {
            let file = std::fs::read(house.dir.path().join("key")).unwrap();
            let key: Value = serde_json::from_slice(&file).unwrap();
            let seed = URL_SAFE_NO_PAD.decode(key["d"].as_str().unwrap()).unwrap();
            let pair = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
            let key = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap()
        };
        let all = json!({"volumes": ["*"], "allow": ["read"]});
        let is_let_in = |claims| ask(&house.verifier, Some(&format!("Bearer {}", sign(claims)))).is_ok();
        assert!(is_let_in(json!({"quire": all})));
        assert!(is_let_in(json!({"quire": all, "aud": ["other", "quire"], "iss": "somebody"})));
        for claims in [
            json!({"sub": "ada"}),
            json!({"quire": all, "aud": "other"}),
            json!({"quire": all, "nbf": 4_000_000_000_u64}),
            json!({"quire": all, "exp": "tomorrow"}),
            json!({"quire": all, "exp": 1}),
            json!({"quire": {"volumes": ["a*b"], "allow": ["read"]}}),
            json!({"quire": {"volumes": ["*"], "allow": ["everything"]}}),
            json!({"quire": {"volumes": ["*"]}}),
        ] {
            assert!(!is_let_in(claims.clone()), "{claims}");
        }
    }

    #[test]
    fn a_token_ends_with_its_time_though_it_is_remembered_and_with_its_key() {
        let house = House::new();
        let soon = grant(Some(SystemTime::now() + Duration::from_secs(2)));
        let token = format!("Bearer {}", house.sign(&soon));
        assert!(ask(&house.verifier, Some(&token)).is_ok());
        {
            let mut known = house.verifier.known.lock();
            let grant = known.grants.values_mut().next().unwrap();
            grant.expires = Some(SystemTime::now() - Duration::from_secs(1));
        }
        assert!(ask(&house.verifier, Some(&token)).is_err());

        let lasting = format!("Bearer {}", house.sign(&grant(None)));
        assert!(ask(&house.verifier, Some(&lasting)).is_ok());
        let another = house.dir.path().join("another");
        SigningKey::generate().unwrap().save(&another).unwrap();
        let public = SigningKey::public_file(&house.dir.path().join("key"));
        std::fs::write(&public, std::fs::read(SigningKey::public_file(&another)).unwrap()).unwrap();
        house.verifier.reload_if_changed();
        assert!(ask(&house.verifier, Some(&lasting)).is_err(), "its key is gone");
        std::fs::write(&public, "{").unwrap();
        house.verifier.reload_if_changed();
        let newer = SigningKey::load(&another).unwrap().sign(&grant(None), SystemTime::now()).unwrap();
        assert!(ask(&house.verifier, Some(&format!("Bearer {newer}"))).is_ok(), "a broken file changes nothing");
    }

    #[test]
    fn key_files_are_private_never_overwritten_and_what_is_none_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let house = House::new();
        let file = house.dir.path().join("key");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(SigningKey::generate().unwrap().save(&file).is_err());
        assert!(SigningKey::load(&SigningKey::public_file(&file)).is_err(), "a public key signs nothing");
        assert!(format!("{:?}", house.key).contains("hidden"));
        let set = house.dir.path().join("set");
        for wrong in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#] {
            std::fs::write(&set, wrong).unwrap();
            assert!(Verifier::load(set.clone()).is_err(), "{wrong}");
        }
        assert!(Verifier::load(house.dir.path().join("nowhere")).is_err());
    }
}
